"""`rouse pair`: nodes that wait in the network, and how they join."""

import asyncio
import json
import secrets
import sys
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

from appliance.bus.client import Bus
from appliance.bus.errors import BusError
from appliance.bus.pairing_messages import PairedNode, PairingClaim, PairingOffer, PairingResult
from appliance.bus.topics import PAIRED_NODE, PAIRING_CLAIM, PAIRING_OFFER, PAIRING_RESULT
from appliance.cli.command_line import CommandError, command_line
from appliance.pairing.codes import DIGITS, typed
from appliance.pairing.errors import PairingError
from appliance.pairing.node_store import NodeStore
from appliance.security.broker import connect_to
from appliance.security.secrets import SecretError
from appliance.settings.model import Settings

ANSWER_SECONDS = 90.0
CONNECT_SECONDS = 10.0
RETAINED_SECONDS = 1.0
"""How long the broker may take to send what it keeps."""
_PIPE_WIDTH = 200


class _Pair(TyperGroup):
    """Takes what is no command for the name of a node."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = ["node", *args]
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=_Pair,
    no_args_is_help=True,
    help="Pair with a node: rouse pair NODE asks for the code that its screen shows.",
)


@app.command("list")
def list_nodes(
    context: typer.Context,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object, for scripts.")] = False,
) -> None:
    """Show the nodes that wait to be paired, and those that belong to this hub."""
    offers: dict[str, PairingOffer] = {}
    members: dict[str, PairedNode] = {}

    async def ask(bus: Bus) -> None:
        await bus.wait_connected(CONNECT_SECONDS)
        await asyncio.sleep(RETAINED_SECONDS)

    def subscribe(bus: Bus) -> None:
        bus.subscribe(PAIRING_OFFER, _gathering(offers))
        bus.subscribe(PAIRED_NODE, _gathering(members))

    _on_the_bus(command_line(context).load().settings, subscribe, ask)
    if as_json:
        told = {
            "waiting": [offers[name].model_dump() for name in sorted(offers)],
            "paired": [members[name].model_dump() for name in sorted(members)],
        }
        typer.echo(json.dumps(told, indent=2))
        return
    table = Table("Node", "State", "Model", "Roles", "Address", "Key", box=None, pad_edge=False)
    for name, offer in sorted(offers.items()):
        state = {"open": "waits", "locked": "locked: too many wrong codes"}.get(offer.state, offer.state)
        roles = ", ".join(offer.roles)
        table.add_row(name, state, offer.model, roles, offer.address, offer.fingerprint[:16])
    for name, member in sorted(members.items()):
        table.add_row(name, member.state.replace("_", " "), "", "", "", member.fingerprint[:16])
    if table.row_count:
        Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, markup=False).print(table)
    else:
        typer.echo("No node waits in this network, and none belongs to this hub.")


@app.command("node", hidden=True)
def pair(
    context: typer.Context,
    node: Annotated[str, typer.Argument(metavar="NODE", help="Name of a node that waits.")],
    code: Annotated[
        str | None,
        typer.Option(
            help="The code; asked for when it is not given, or read from standard input. Other users of this machine "
            "can see what is written here."
        ),
    ] = None,
) -> None:
    """Pair with a node."""
    settings = command_line(context).load().settings
    _finish(_claim(settings, node, action="pair", code=_read_code(code)))


@app.command()
def forget(
    context: typer.Context,
    node: Annotated[str, typer.Argument(metavar="NODE", help="Name of a node of this hub.")],
) -> None:
    """Take a node's account and certificate back."""
    _finish(_claim(command_line(context).load().settings, node, action="forget"))


@app.command()
def reset(context: typer.Context) -> None:
    """On a node: leave the hub, to be paired anew at the next start."""
    try:
        NodeStore(command_line(context).load().settings.paths.state).reset()
    except PairingError as error:
        raise CommandError(str(error)) from error
    typer.echo("This node belongs to no hub now. Start it again to see its code: systemctl restart rouse-node")


def _read_code(given: str | None) -> str:
    if given is None:
        if sys.stdin.isatty():
            given = str(typer.prompt("Code on the node's screen", hide_input=True))
        else:
            given = sys.stdin.readline()
    code = typed(given)
    if code is None:
        raise CommandError(f"that is no pairing code: it has {DIGITS} digits")
    return code


def _claim(settings: Settings, node: str, *, action: str, code: str | None = None) -> PairingResult:
    claim = PairingClaim.model_validate(
        {"id": secrets.token_hex(16), "action": action, "code": code, "deadline": time.time() + ANSWER_SECONDS}
    )
    results: list[PairingResult] = []
    there = asyncio.Event()

    async def note(result: PairingResult | None, _levels: Mapping[str, str]) -> None:
        if result is not None and result.id == claim.id:
            results.append(result)
            there.set()

    async def ask(bus: Bus) -> None:
        await bus.wait_connected(CONNECT_SECONDS)
        await bus.publish(PAIRING_CLAIM, claim, node=node)
        async with asyncio.timeout(ANSWER_SECONDS):
            await there.wait()

    try:
        _on_the_bus(settings, lambda bus: bus.subscribe(PAIRING_RESULT, note), ask)
    except ValueError as error:
        raise CommandError(f"{node!r} is no name of a node") from error
    except TimeoutError as error:
        raise CommandError("no hub answers on the bus. Is rouse hub running?") from error
    return results[0]


def _finish(result: PairingResult) -> None:
    if result.ok:
        typer.echo(result.message)
        return
    more = f" {result.attempts_left} attempts are left." if result.attempts_left is not None else ""
    if result.retry_after is not None:
        more += f" Try again in {round(result.retry_after / 60 + 0.5)} minutes."
    raise CommandError(result.message + more)


def _on_the_bus(
    settings: Settings, subscribe: Callable[[Bus], None], work: Callable[[Bus], Coroutine[Any, Any, None]]
) -> None:
    async def run() -> None:
        bus = Bus(connect_to(settings), identifier=f"rouse-pair-{secrets.token_hex(4)}")
        subscribe(bus)
        async with bus:
            await work(bus)

    try:
        asyncio.run(run())
    except (BusError, SecretError) as error:
        raise CommandError(str(error)) from error


def _gathering[M](into: dict[str, M]) -> Callable[[M | None, Mapping[str, str]], Coroutine[Any, Any, None]]:
    async def gather(message: M | None, levels: Mapping[str, str]) -> None:
        if message is not None:
            into[levels["node"]] = message
        else:
            into.pop(levels["node"], None)

    return gather
