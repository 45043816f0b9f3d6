"""Preflight reports as tables of at most 80 columns."""

import time

from rich.console import Console
from rich.table import Table
from rich.text import Text

from appliance.preflight.report import Report, without_root
from appliance.preflight.result import Fitness, Result, Verdict
from appliance.preflight.run import Outcome, Unreached

_WIDEST = 110
_STYLES: dict[Verdict | Fitness, str] = {
    "ok": "green", "warn": "yellow", "bad": "bold red", "unknown": "dim",
    "fit": "green", "limited": "yellow", "unfit": "bold red",
}  # fmt: skip
_MOST_REASONS = 6


def print_outcome(console: Console, outcome: Outcome, *, brief: bool, first: bool) -> None:
    """Print what was found on a machine; `brief` is one line."""
    if brief:
        good = not isinstance(outcome, Unreached) and not outcome.unfit
        verdict = "not reached" if isinstance(outcome, Unreached) else "good" if good else "unfit"
        style = "green" if good else "bold red"
        line = Text.assemble((outcome.host, "bold"), ": ", (verdict, style), f": {outcome.summary}")
        console.print(line, soft_wrap=True)
        return
    if not first:
        console.print()
    if isinstance(outcome, Unreached):
        console.print(Text.assemble((f"{outcome.host}  ", "bold"), ("not reached", "bold red")))
        console.print(Text(outcome.summary), width=min(console.width, _WIDEST))
        return
    _print_report(console, outcome)


def _print_report(console: Console, report: Report) -> None:
    width = min(console.width, _WIDEST)
    name = f" ({report.name})" if report.name != report.host else ""
    clock = time.strftime("%Y-%m-%d %H:%M", time.localtime(report.time))
    console.print(Text.assemble((f"{report.host}{name}", "bold"), f"  {clock}, {report.seconds:.1f} s"))
    console.print(_checks(report), width=width)
    console.print()
    console.print(_roles(report), width=width)
    hidden = without_root(report.shown)
    if hidden:
        text = f"Root would know more of: {', '.join(hidden)}."
        console.print(Text(text, style="dim"), width=width)


def _checks(report: Report) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, max_width=24)
    table.add_column(overflow="fold")
    for result in report.shown:
        table.add_row(Text(result.verdict, style=_STYLES[result.verdict]), result.title, _found(result))
    return table


def _found(result: Result) -> Text:
    text = Text(result.found)
    if result.verdict in {"warn", "bad"}:
        if result.needed:
            text.append(f"\nNeeds {result.needed}.", style="dim")
        if result.remedy:
            text.append(f"\n{result.remedy}")
    return text


def _roles(report: Report) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for one in report.fitness:
        asked = report.wanted is None or one.role in report.wanted
        titles = [reason.partition(": ")[0] for reason in one.reasons]
        reasons = ", ".join(titles[:_MOST_REASONS])
        more = f" and {len(titles) - _MOST_REASONS} more" if len(titles) > _MOST_REASONS else ""
        style = _STYLES[one.fitness] if asked else "dim"
        role = f"{one.role}{'' if asked else ' (not asked for)'}"
        table.add_row(Text(role, style="bold" if asked else "dim"), Text(one.fitness, style=style), f"{reasons}{more}")
    return table
