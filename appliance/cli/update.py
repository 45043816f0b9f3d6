"""`rouse update`: the image of this machine, or of another node of the house."""

import asyncio
import json
import secrets
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from appliance.bus.client import Bus
from appliance.bus.errors import BusError
from appliance.bus.topics import NODE_UPDATE, UPDATE_COMMAND
from appliance.bus.update_messages import NodeUpdate, UpdateCommand
from appliance.cli import update_local
from appliance.cli.command_line import CommandError, command_line
from appliance.node.identity import node_name
from appliance.security.broker import connect_to
from appliance.security.secrets import SecretError
from appliance.settings.model import Settings
from appliance.updates.image import ImagePaths
from appliance.updates.memory import Notebook
from appliance.updates.versions import is_newer, is_version

app = typer.Typer(no_args_is_help=True, help="Update the image that a machine runs, and go back.")

CONNECT_SECONDS = 10.0
RETAINED_SECONDS = 1.5
"""How long the broker may take to send what it keeps."""
TAKEN_SECONDS = 60.0
"""How long a node may take to begin with a command."""
_PIPE_WIDTH = 200
_SETTLED = frozenset({"idle", "failed", "rolled_back"})

NodeOption = Annotated[str | None, typer.Option("--node", help="Name of the node; this machine when not given.")]
AllOption = Annotated[bool, typer.Option("--all", help="All nodes of the house.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
WaitOption = Annotated[bool, typer.Option("--wait/--no-wait", help="Stay until it is done.")]
LocalOption = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="FOLDER",
        help="Install from this folder or address, on this machine, as root and without the node daemon.",
    ),
]
type OnProgress = Callable[[float, str], None]
"""Called with how much is done, 0 to 1, and what is being done."""


@app.command()
def status(
    context: typer.Context, *, node: NodeOption = None, every: AllOption = False, as_json: JsonOption = False
) -> None:
    """Show what runs, what is newer, and what is being done."""
    settings = command_line(context).load().settings
    wanted = None if every else node or node_name(settings.node)
    found = asyncio.run(_guarded(_retained(settings, wanted)))
    if as_json:
        typer.echo(
            json.dumps({name: told.model_dump(exclude_none=True) for name, told in sorted(found.items())}, indent=2)
        )
        return
    if not found:
        raise CommandError(f"{wanted or 'no node'} says nothing of updates: does it run the image, and rouse node?")
    _console().print(_table(found))


@app.command()
def check(context: typer.Context, *, node: NodeOption = None, as_json: JsonOption = False) -> None:
    """Look for a newer version now."""
    settings = command_line(context).load().settings
    told = _command(settings, node or node_name(settings.node), _new("check"), shown=not as_json)
    if as_json:
        typer.echo(told.model_dump_json(exclude_none=True, indent=2))
    if told.error is not None:
        raise CommandError(told.error)
    if not as_json:
        newer = told.latest is not None and is_newer(told.latest, told.installed)
        typer.echo(f"Version {told.latest} can be installed." if newer else "There is no newer version.")


@app.command()
def install(
    context: typer.Context,
    version: Annotated[str | None, typer.Argument(help="The newest when not given.")] = None,
    *,
    node: NodeOption = None,
    downgrade: Annotated[bool, typer.Option("--downgrade", help="Allow an older version than what runs.")] = False,
    source: LocalOption = None,
    reboot: Annotated[bool, typer.Option("--reboot", help="With --from: restart the machine at the end.")] = False,
    wait: WaitOption = True,
    as_json: JsonOption = False,
) -> None:
    """Install a version into the other slot and restart into it, as soon as nobody needs the machine."""
    if version is not None and not is_version(version):
        raise CommandError(f"{version!r} is no version of an image, such as 0.2.0")
    settings = command_line(context).load().settings
    if source is not None:
        if node is not None:
            raise CommandError("--from is for this machine, so --node makes no sense with it")
        with _progress(shown=not as_json) as show:
            installed = update_local.install(settings, source, version, downgrade=downgrade, on_progress=show)
        _tell_local(installed, as_json=as_json)
        if reboot:
            update_local.reboot()
        return
    command = _new("install", version=version, downgrade=downgrade)
    told = _command(settings, node or node_name(settings.node), command, shown=not as_json, wait=wait)
    _tell(told, as_json=as_json, done=f"Version {told.installed} runs and is healthy.")


@app.command()
def rollback(
    context: typer.Context, *, node: NodeOption = None, wait: WaitOption = True, as_json: JsonOption = False
) -> None:
    """Go back to the version in the other slot; if that does not come up, the machine returns to this one."""
    settings = command_line(context).load().settings
    told = _command(settings, node or node_name(settings.node), _new("rollback"), shown=not as_json, wait=wait)
    _tell(told, as_json=as_json, done=f"Version {told.installed} runs and is healthy.")


@app.command()
def history(context: typer.Context, *, as_json: JsonOption = False) -> None:
    """Show this machine's updates, the newest last."""
    settings = command_line(context).load().settings
    entries = Notebook(ImagePaths(staged=settings.paths.state / "updates").staged).history()
    if as_json:
        typer.echo(json.dumps([entry.model_dump() for entry in entries], indent=2))
        return
    if not entries:
        typer.echo("This machine has not been updated yet.")
        return
    table = Table("When", "From", "To", "Result", "Took", "Why", box=None, pad_edge=False)
    for entry in entries:
        took = f"{entry.seconds / 60:.1f} min" if entry.seconds is not None else ""
        result = entry.result.replace("_", " ")
        table.add_row(_when(entry.at), entry.former, entry.version, result, took, entry.error)
    _console().print(table)


def _new(action: str, **more: object) -> UpdateCommand:
    return UpdateCommand.model_validate({"id": secrets.token_hex(16), "action": action, **more})


def _command(settings: Settings, node: str, command: UpdateCommand, *, shown: bool, wait: bool = True) -> NodeUpdate:
    """Send a command, show what the node says, and return the last of it."""
    return asyncio.run(_guarded(_commanded(settings, node, command, shown=shown, wait=wait)))


async def _commanded(settings: Settings, node: str, command: UpdateCommand, *, shown: bool, wait: bool) -> NodeUpdate:
    told: list[NodeUpdate] = []
    news, there = asyncio.Event(), asyncio.Event()
    begun = False

    async def note(update: NodeUpdate | None, _levels: Mapping[str, str]) -> None:
        nonlocal begun
        if update is None:
            return
        # A node that has restarted no longer knows which command that was.
        begun = begun or update.command == command.id
        told.append(update)
        there.set()
        if begun:
            news.set()

    NODE_UPDATE.at(node=node)
    bus = Bus(connect_to(settings), identifier=f"rouse-update-{secrets.token_hex(4)}")
    bus.subscribe(NODE_UPDATE, note, node=node)
    with _progress(shown=shown and wait) as show:
        async with bus:
            await bus.wait_connected(CONNECT_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout(RETAINED_SECONDS):
                    await there.wait()
            if not told:
                raise CommandError(f"{node} says nothing of updates: does it run the image, and rouse node?")
            await bus.publish(UPDATE_COMMAND, command, node=node)
            try:
                async with asyncio.timeout(TAKEN_SECONDS):
                    await news.wait()
            except TimeoutError:
                doing = f"; it is {told[-1].state}: {told[-1].detail}" if told[-1].state not in _SETTLED else ""
                raise CommandError(f"{node} has not begun within {TAKEN_SECONDS:.0f} s{doing}") from None
            while wait and told[-1].state not in _SETTLED:
                news.clear()
                show(told[-1].progress or 0.0, f"{told[-1].state}: {told[-1].detail}".rstrip(": "))
                await news.wait()
            return told[-1]


async def _retained(settings: Settings, node: str | None) -> dict[str, NodeUpdate]:
    found: dict[str, NodeUpdate] = {}

    async def note(update: NodeUpdate | None, levels: Mapping[str, str]) -> None:
        if update is not None:
            found[levels["node"]] = update

    if node is not None:
        NODE_UPDATE.at(node=node)
    bus = Bus(connect_to(settings), identifier=f"rouse-update-{secrets.token_hex(4)}")
    bus.subscribe(NODE_UPDATE, note, **({} if node is None else {"node": node}))
    async with bus:
        await bus.wait_connected(CONNECT_SECONDS)
        await asyncio.sleep(RETAINED_SECONDS)
    return found


async def _guarded[R](work: Awaitable[R]) -> R:
    try:
        return await work
    except (BusError, SecretError) as error:
        raise CommandError(str(error)) from error
    except ValueError as error:
        raise CommandError(f"that is no name of a node: {error}") from error


def _tell(told: NodeUpdate, *, as_json: bool, done: str) -> None:
    if as_json:
        typer.echo(told.model_dump_json(exclude_none=True, indent=2))
    if told.error is not None:
        raise CommandError(told.error)
    if not as_json:
        typer.echo(
            done if told.state == "idle" else f"It has begun: {told.state}. `rouse update status` tells how it goes."
        )


def _tell_local(installed: str, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"version": installed, "state": "installed"}))
    else:
        typer.echo(f"Version {installed} is in the other slot and starts next: restart the machine when it suits you.")


def _table(found: Mapping[str, NodeUpdate]) -> Table:
    table = Table("Node", "Runs", "Latest", "Other slot", "State", "Looked", "", box=None, pad_edge=False)
    for name, told in sorted(found.items()):
        share = f" {told.progress:.0%}" if told.progress is not None else ""
        newest = told.latest or "not known"
        looked = _when(told.checked) if told.checked is not None else "never"
        state = f"{told.state.replace('_', ' ')}{share}"
        words = told.error or told.detail
        table.add_row(name, told.installed, newest, told.previous or "empty", state, looked, words)
    return table


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M")


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, markup=False)


@contextmanager
def _progress(*, shown: bool) -> Iterator[OnProgress]:
    """Show a bar on a terminal, and a line for each news elsewhere."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    said = ""
    with Progress(*columns, console=console, disable=not shown or not console.is_terminal, transient=True) as progress:
        task = progress.add_task("", total=1.0)

        def show(share: float, text: str) -> None:
            nonlocal said
            if console.is_terminal:
                progress.update(task, completed=share, description=text)
            elif shown and text != said:
                typer.echo(f"{share:4.0%} {text}", err=True)
            said = text

        yield show
