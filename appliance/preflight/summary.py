"""What the report of a machine's start came to, for its screen and its daemon, which load nothing else of this."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

BOOT_FILE = Path("/run/rouse/preflight/local.json")
"""Where the report on this machine is, from its start on."""
_LONGEST = 1 << 20


def read_summary(path: Path = BOOT_FILE) -> Mapping[str, Any] | None:
    """Return what the last report on this machine came to; None where there is none."""
    try:
        with path.open("rb") as file:
            told = json.loads(file.read(_LONGEST))
        machine = told["machines"][0]
        return {
            "good": bool(machine["good"]),
            "summary": str(machine["summary"])[:500],
            "time": float(machine["time"]),
            "roles": {str(role): str(found["fitness"]) for role, found in machine.get("roles", {}).items()},
        }
    except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return None
