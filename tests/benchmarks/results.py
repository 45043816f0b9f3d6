"""Shows and writes what the scenarios found."""

import json
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
from rich.box import SIMPLE_HEAD
from rich.table import Table

from appliance.charts import as_svg
from tests.benchmarks.scenario import Result, Row, Setting

COLOURS = {"PASS": "green", "FAIL": "bold red", "not measured": "yellow"}


def table(results: Mapping[str, Result]) -> Table:
    """Return every row."""
    shown = Table(box=SIMPLE_HEAD, pad_edge=False, title="make bench", title_justify="left")
    for column in ("what", "measured", "must", "", "from"):
        shown.add_column(column)
    for result in results.values():
        for row in result.rows:
            verdict = row.verdict
            colour = COLOURS.get(verdict)
            shown.add_row(row.what, measured(row), must(row), f"[{colour}]{verdict}[/]" if colour else "", row.note)
        shown.add_section()
    return shown


def measured(row: Row) -> str:
    """Return a row's number with its unit."""
    if row.value is None:
        return "-"
    digits = 0 if abs(row.value) >= 100 or row.value == round(row.value) else 2
    return f"{row.value:,.{digits}f} {row.unit}"


def must(row: Row) -> str:
    """Return what a row's number must be."""
    return f"{row.must[0]} {row.must[1]:g} {row.unit}" if row.must else ""


def markdown(results: Mapping[str, Result], circumstances: str) -> str:
    """Return the rows as a page."""
    lines = [f"# make bench\n\n{circumstances}\n", "| what | measured | must | | from |", "|---|---|---|---|---|"]
    for result in results.values():
        lines += [
            "| "
            + " | ".join(
                cell.replace("|", "\\|") for cell in (row.what, measured(row), must(row), row.verdict, row.note)
            )
            + " |"
            for row in result.rows
        ]
    notes = [f"- {name}: {note}" for name, result in results.items() for note in result.notes]
    return "\n".join([*lines, "", *notes]) + "\n"


def circumstances(setting: Setting) -> str:
    """Return on what was measured, in a sentence."""
    load = psutil.getloadavg()[0]
    return (
        f"{setting.model.name}, {setting.threads} threads, {psutil.cpu_count()} processors, Python "
        f"{platform.python_version()}, {time.strftime('%Y-%m-%d %H:%M')}, load before {load:.1f}."
    )


def write(results: Mapping[str, Result], said: str, folder: Path) -> list[Path]:
    """Write everything; return the files."""
    document: dict[str, Any] = {
        "circumstances": said,
        "scenarios": {
            name: {"rows": [row.as_json() for row in result.rows], "notes": list(result.notes), "data": result.data}
            for name, result in results.items()
        },
    }
    texts = {"bench.json": json.dumps(document, indent=1) + "\n", "bench.md": markdown(results, said)}
    charts = [chart for result in results.values() for chart in result.charts]
    if charts:
        texts["bench.svg"] = as_svg(*charts)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text)
    return [folder / name for name in texts]
