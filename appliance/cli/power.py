"""`rouse power`: which machines sleep, and what they are asked for."""

import json
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from appliance.cli.command_line import CommandError, command_line
from appliance.cli.lazy import LazyGroup
from appliance.cli.moments import moment
from appliance.cli.power_view import Action, NodeView, PowerView, duration, look, printable, table
from appliance.power.zone import house_zone
from appliance.security.audit import AuditError, audit_file, read_audit
from appliance.settings.model import Settings

SLEEP_SECONDS = 60.0
"""How long a node may take to sleep, saving included, before the command says why it does not."""
MORE_SECONDS = 5.0
_PIPE_WIDTH = 200


class _Power(LazyGroup):
    prefix = "appliance.cli.power_"
    members = frozenset({"energy", "simulate"})


app = typer.Typer(cls=_Power, no_args_is_help=True, help="Which machines sleep, and what they are asked for.")

Node = Annotated[str, typer.Argument(metavar="NODE", help="Name of a node.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is so.")]
Reason = Annotated[str, typer.Option(help="Why, for the log.")]
_UNTIL_HELP = "Until when: 22:30, 2h, 90m or '2026-12-01 08:00'."


@app.command()
def status(context: typer.Context, *, as_json: Json = False) -> None:
    """Show each node, how long it has been awake or asleep, and why; ! is one that needs looking after."""

    async def show(view: PowerView) -> dict[str, NodeView]:
        return view.announced

    nodes = look(_settings(context), show)
    if as_json:
        typer.echo(json.dumps([node.as_json(name) for name, node in nodes.items()], indent=2))
    elif nodes:
        _print(table(nodes))
    else:
        typer.echo("No node is announced on the bus.")


@app.command()
def wake(context: typer.Context, node: Node, *, wait: Wait = True, reason: Reason = "") -> None:
    """Wake a node. This also ends stay-off."""
    settings = _settings(context)
    begun = time.monotonic()

    async def wish(view: PowerView) -> bool:
        found = await view.ask(node, "wake", reason=reason)
        if not wait:
            return True
        return await _until(
            view, f"waking {node}", lambda: found.state == "awake", settings.wake.timeout + MORE_SECONDS
        )

    if not look(settings, wish):
        raise CommandError(f"{node} does not wake; rouse power audit says what was tried")
    typer.echo(
        f"{node} is awake after {time.monotonic() - begun:.1f} s." if wait else f"The hub was asked to wake {node}."
    )


@app.command()
def sleep(context: typer.Context, node: Node, *, wait: Wait = True, reason: Reason = "") -> None:
    """Put a node to sleep as soon as nothing speaks against it; the next request wakes it."""
    _put_down(_settings(context), node, "sleep", None, wait=wait, reason=reason)


@app.command("stay-off")
def stay_off(
    context: typer.Context,
    node: Node,
    *,
    until: Annotated[str | None, typer.Option(help=f"{_UNTIL_HELP} Until somebody wakes it, when not given.")] = None,
    wait: Wait = True,
    reason: Reason = "",
) -> None:
    """Put a node to sleep and leave it so: requests don't wake it, and it is not missed."""
    settings = _settings(context)
    _put_down(settings, node, "stay_off", _moment(settings, until), wait=wait, reason=reason)


@app.command("stay-awake")
def stay_awake(
    context: typer.Context,
    node: Node,
    *,
    until: Annotated[str | None, typer.Option(help=f"{_UNTIL_HELP} Until it is put to sleep, when not given.")] = None,
    reason: Reason = "",
) -> None:
    """Keep a node awake."""
    settings = _settings(context)
    end = _moment(settings, until)
    look(settings, lambda view: view.ask(node, "stay_awake", until=end, reason=reason))
    for_how_long = f"for {duration(end - time.time())}" if end is not None else "until it is put to sleep"
    typer.echo(f"{node} is asked to stay awake {for_how_long}.")


@app.command()
def recover(context: typer.Context, node: Node, *, reason: Reason = "") -> None:
    """Begin at once what is otherwise tried when a node is missing: packets, IPMI, plug, script."""

    async def wish(view: PowerView) -> None:
        found = await view.ask(node, "recover", reason=reason)
        if found.state not in {"lost", "asleep", "off"}:
            raise CommandError(f"{node} is {found.state.replace('_', ' ')}; there is nothing to recover")

    look(_settings(context), wish)
    typer.echo(f"The hub recovers {node}. rouse power audit says what it does.")


@app.command()
def forget(context: typer.Context, node: Node) -> None:
    """Forget a node that is gone for good, so that it is not missed any more; one that returns is known again."""
    look(_settings(context), lambda view: view.forget(node))
    typer.echo(f"{node} is forgotten.")


@app.command()
def audit(
    context: typer.Context,
    *,
    last: Annotated[int, typer.Option(min=1, max=100_000, help="How many entries.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line, for scripts.")] = False,
) -> None:
    """Show what was done to machines, on whose word and with which result; on the hub."""
    settings = _settings(context)
    try:
        entries = read_audit(audit_file(settings.paths.state), last=last)
    except AuditError as error:
        raise CommandError(str(error)) from error
    if as_json:
        for entry in entries:
            typer.echo(json.dumps(asdict(entry)))
        return
    zone = house_zone(settings.system.time_zone)
    shown = Table("When", "On whose word", "What", "To", "Result", "Seen", box=None, pad_edge=False)
    for entry in entries:
        when = datetime.fromtimestamp(entry.time, zone).strftime("%Y-%m-%d %H:%M:%S")
        parts = (entry.who, entry.what, entry.subject, entry.outcome, entry.detail)
        shown.add_row(when, *map(printable, parts))
    if shown.row_count:
        _print(shown)
    else:
        typer.echo("Nothing has been done yet.")


def _settings(context: typer.Context) -> Settings:
    return command_line(context).load().settings


def _moment(settings: Settings, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return moment(text, time.time(), house_zone(settings.system.time_zone))
    except (ValueError, OverflowError) as error:
        raise CommandError(f"--until {error}") from error


def _put_down(settings: Settings, node: str, action: Action, until: float | None, *, wait: bool, reason: str) -> None:
    async def wish(view: PowerView) -> NodeView:
        found = await view.ask(node, action, until=until, reason=reason)
        if wait:
            await _until(view, f"putting {node} to sleep", lambda: found.state in {"asleep", "off"}, SLEEP_SECONDS)
        return found

    found = look(settings, wish)
    if not wait:
        typer.echo(f"{node} is asked to sleep.")
    elif found.state in {"asleep", "off"}:
        typer.echo(f"{node} is {found.state}.")
    else:
        blockers = printable("; ".join(found.power.blockers)) if found.power is not None else ""
        raise CommandError(f"{node} is still {found.state.replace('_', ' ')}: {blockers or 'it does not say why'}")


async def _until(view: PowerView, what: str, condition: Callable[[], bool], seconds: float) -> bool:
    console = Console(stderr=True)
    waiting: Awaitable[bool] = view.until(condition, seconds)
    if not console.is_terminal:
        return await waiting
    with console.status(what):
        return await waiting


def _print(shown: Table) -> None:
    Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, markup=False).print(shown)
