"""`rouse power energy`: what this machine has used, and what its sleep has saved."""

import json
import sys
from collections.abc import Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from appliance import durable_files
from appliance.charts import Axis, Chart, Series, as_svg
from appliance.cli.command_line import CommandError, command_line
from appliance.power.energy import JOULES_PER_KWH, AccountState, Day, account_file, read_account
from appliance.power.zone import house_zone

_PIPE_WIDTH = 120

app = typer.Typer()


@app.command("energy")
def energy(
    context: typer.Context,
    *,
    days: Annotated[int, typer.Option(min=1, max=400, help="Days of the history to show.")] = 14,
    svg: Annotated[Path | None, typer.Option(dir_okay=False, help="File for a chart of these days.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
) -> None:
    """Show what this machine has used, and what its sleep has saved against a machine that is always on."""
    settings = command_line(context).load().settings
    path = account_file(settings.paths.state)
    account = read_account(path)
    if account is None:
        raise CommandError(f"there is no energy account in {path}; `rouse node` keeps one, a minute after its start")
    shown = dict(sorted(account.days.items())[-days:])
    if as_json:
        typer.echo(json.dumps(_as_json(account, shown), indent=1))
    else:
        since = datetime.fromtimestamp(account.since, house_zone(settings.system.time_zone))
        console = Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH)
        console.print(_summary(account, since), highlight=False)
        console.print(_table(shown))
    if svg is not None:
        try:
            durable_files.write(svg, _chart(shown).encode(), mode=0o644)
        except OSError as error:
            raise CommandError(f"{svg} can't be written: {error.strerror}") from error
        typer.echo(f"Written: {svg}", err=True)


def _summary(account: AccountState, since: datetime) -> str:
    used, saved = account.used / JOULES_PER_KWH, account.saved / JOULES_PER_KWH
    measured = account.measured / account.used if account.used else 0.0
    if account.idle_watts is None:
        against = "idle watts of the settings"
    else:
        against = f"{account.idle_watts:.1f} W measured idle"
    return (
        f"Since {since:%Y-%m-%d}: {used:.2f} kWh used, {measured:.0%} of it measured on the whole machine; "
        f"{saved:.2f} kWh saved, against {against}."
    )


def _table(days: Mapping[str, Day]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in ("Day", "Used kWh", "Saved kWh", "Busy h", "Idle h", "Asleep h"):
        table.add_column(column, justify="left" if column == "Day" else "right")
    for name, day in days.items():
        hours = (f"{seconds / 3600:.1f}" for seconds in (day.busy, day.idle, day.asleep))
        table.add_row(name, f"{day.used / JOULES_PER_KWH:.3f}", f"{day.saved / JOULES_PER_KWH:.3f}", *hours)
    return table


def _as_json(account: AccountState, days: Mapping[str, Day]) -> dict[str, object]:
    return {
        "since": account.since,
        "used_kwh": account.used / JOULES_PER_KWH,
        "measured_kwh": account.measured / JOULES_PER_KWH,
        "saved_kwh": account.saved / JOULES_PER_KWH,
        "baseline": "settings" if account.idle_watts is None else "measured",
        "idle_watts": account.idle_watts,
        "days": {
            name: {
                "used_kwh": day.used / JOULES_PER_KWH,
                "measured_kwh": day.measured / JOULES_PER_KWH,
                "saved_kwh": day.saved / JOULES_PER_KWH,
                "busy_seconds": day.busy,
                "idle_seconds": day.idle,
                "asleep_seconds": day.asleep,
            }
            for name, day in days.items()
        },
    }


def _chart(days: Mapping[str, Day]) -> str:
    last = date.fromisoformat(max(days)) if days else date.min
    points = {(date.fromisoformat(name) - last).days: day for name, day in days.items()}
    return as_svg(
        Chart(
            f"Energy by day, until {last}",
            Axis("day, from the last one"),
            Axis("kWh"),
            [
                Series("used", [(day, found.used / JOULES_PER_KWH) for day, found in points.items()]),
                Series("saved by sleep", [(day, found.saved / JOULES_PER_KWH) for day, found in points.items()]),
            ],
        )
    )
