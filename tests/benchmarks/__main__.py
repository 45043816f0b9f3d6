"""Measures everything that Rouse promises about speed, and says whether it holds; writes build/bench.

Run by `make bench`, or as `python -m tests.benchmarks [--only NAME,…]`.
"""

import argparse
import asyncio
import os
import sys
import time
from pathlib import Path

from rich.console import Console

from tests.benchmarks.results import circumstances, table, write
from tests.benchmarks.running import FOLDER, MODEL, until_told
from tests.benchmarks.scenario import Result, Row, Scenario, Setting
from tests.benchmarks.scenarios import SCENARIOS

PIPE_WIDTH = 180


async def run(scenario: Scenario, setting: Setting, console: Console) -> Result:
    """Run a scenario; one that breaks is a failed row, and the others still run."""
    console.print(f"[bold]{scenario.title}[/]")
    started = time.monotonic()
    try:
        result = await scenario.run(setting)
    except Exception as error:  # noqa: BLE001  # whatever it was, it is reported
        console.print_exception()
        row = Row(scenario.title, None, "", None, f"it broke: {error}"[:500], broken=True)
        return Result([row])
    console.print(f"  {time.monotonic() - started:.0f} s", style="dim")
    return result


def main() -> None:
    """Run the scenarios; exit with 1 when a number is not what it must be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only", default="", help="names, separated by commas: " + ", ".join(one.name for one in SCENARIOS)
    )
    parser.add_argument("--model", type=Path, default=Path(os.environ.get("ROUSE_TEST_MODEL", MODEL)))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    names = [name for name in arguments.only.split(",") if name]
    unknown = set(names) - {one.name for one in SCENARIOS}
    if unknown:
        parser.error(f"there is no scenario {', '.join(sorted(unknown))}")
    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)
    setting = Setting(
        model=arguments.model.resolve(),
        folder=(FOLDER / "work").resolve(),
        say=lambda text: console.print(f"  {text}", markup=False, highlight=False),
        threads=arguments.threads,
        rounds=arguments.rounds,
    )
    said = circumstances(setting)
    results = {
        one.name: asyncio.run(until_told(run(one, setting, console)))
        for one in SCENARIOS
        if not names or one.name in names
    }
    console.print(table(results))
    for name, result in results.items():
        for note in result.notes:
            console.print(f"{name}: {note}", markup=False, highlight=False)
    console.print("written: " + ", ".join(str(file) for file in write(results, said, FOLDER)))
    sys.exit(any(row.verdict == "FAIL" for result in results.values() for row in result.rows))


if __name__ == "__main__":
    main()
