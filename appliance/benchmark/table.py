"""A report as a table for people."""

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from appliance.benchmark.report import Level, Report
from appliance.benchmark.summary import Summary

COLUMNS = ("clients", "prompt", "answers", "failed", "tokens/s")
TIMES = (
    ("first token", "first_token_ms"), ("inter-token", "inter_token_ms"), ("gap", "gap_ms"), ("answer", "latency_ms")
)  # fmt: skip
SOURCES = {
    "server": "The server counted the tokens.",
    "client": "The server counts no tokens: each chunk of text is taken for one.",
    "mixed": "The server counted the tokens of some answers; elsewhere each chunk of text is taken for one.",
}


def shown(report: Report) -> RenderableType:
    """Return the table, and what must be said about it; times in milliseconds as p50 / p95 / p99."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title=Text(plain(title(report))), title_justify="left")
    for column in COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)
    for name, _ in TIMES:
        table.add_column(f"{name}, ms\np50 / p95 / p99", justify="right", no_wrap=True)
    for level in report.levels:
        table.add_row(*_cells(level))
    return Group(table, *(Text(plain(note)) for note in notes(report)))


def title(report: Report) -> str:
    """Return what was measured."""
    model = f", model {report.model}" if report.model else ""
    length = f", {report.answer_tokens} tokens an answer" if report.answer_tokens else ""
    return f"{report.target}{model}{length} ({report.tool})"


def notes(report: Report) -> list[str]:
    """Return the sentences below the table."""
    said = [SOURCES[source] for source in dict.fromkeys(level.counted_by for level in report.levels if level.completed)]
    for level in report.levels:
        said += [
            f"{level.concurrency} clients: {count} failed, {kind}: {level.error_details.get(kind, '')}".rstrip(": ")
            for kind, count in sorted(level.errors.items())
        ]
        if level.unfinished:
            said.append(f"{level.concurrency} clients: {level.unfinished} unfinished when the measurement ended.")
    if report.interrupted:
        said.append("It was interrupted: the last level is short, or levels are missing.")
    return said


def plain(text: str) -> str:
    """Return text without control characters, which a terminal would obey."""
    return "".join(character if character.isprintable() else "�" for character in text)


def _cells(level: Level) -> list[str]:
    return [
        str(level.concurrency),
        "" if level.prompt_tokens is None else f"{level.prompt_tokens:,}",
        str(level.completed),
        str(level.failed),
        f"{level.tokens_per_second:.1f}",
        *(_times(getattr(level, name)) for _, name in TIMES),
    ]


def _times(summary: Summary | None) -> str:
    if summary is None:
        return "-"
    return " / ".join(_milliseconds(value) for value in (summary.p50, summary.p95, summary.p99))


def _milliseconds(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}"
