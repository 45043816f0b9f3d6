"""Lists what Home Assistant's integrations would install at run time, so that it can be locked instead.

Usage: python -m scripts.home_assistant_requirements [INTEGRATION …]
"""

import argparse
import json
import sys
from pathlib import Path

from homeassistant import bootstrap, components

FROM_THE_START = bootstrap.CORE_INTEGRATIONS | bootstrap.CRITICAL_INTEGRATIONS | bootstrap.DEFAULT_INTEGRATIONS


def requirements(integrations: set[str]) -> list[str]:
    """Return the requirements of integrations and of all that they depend on, sorted."""
    found: set[str] = set()
    waiting, seen = list(integrations), set(integrations)
    while waiting:
        manifest = json.loads((Path(components.__path__[0]) / waiting.pop() / "manifest.json").read_text())
        found.update(manifest.get("requirements", ()))
        new = set(manifest.get("dependencies", ())) - seen
        seen |= new
        waiting += new
    return sorted(found)


def main() -> int:
    """Print the list."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("integrations", nargs="*", help="beside those that Home Assistant always starts")
    print("\n".join(requirements(FROM_THE_START | set(parser.parse_args().integrations))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
