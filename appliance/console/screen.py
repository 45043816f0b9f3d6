"""The snapshot as text: a whole screen, or its facts one by one."""

from collections.abc import Iterator

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from appliance.console.snapshot import Machine, Snapshot

MOST_ERRORS = 2
MOST_EXPERTS = 8
MOST_ADDRESSES = 4


def screen(snapshot: Snapshot, *, width: int, height: int, keys: bool) -> list[str]:
    """Return the lines of a screen, with colours, none longer than `width` and not more than `height`."""
    console = Console(
        width=width, height=height, force_terminal=True, markup=False, highlight=False, legacy_windows=False
    )
    with console.capture() as capture:
        console.print(_content(snapshot, keys=keys))
    return capture.get().splitlines()[:height]


def facts(snapshot: Snapshot) -> Iterator[tuple[str, str]]:
    """Yield what there is to know, by name; nothing that changes all the time."""
    yield "name", f"{snapshot.name} ({', '.join(snapshot.roles)}), Rouse {snapshot.version}"
    more = f" and {len(snapshot.addresses) - MOST_ADDRESSES} more" if len(snapshot.addresses) > MOST_ADDRESSES else ""
    yield "addresses", (", ".join(snapshot.addresses[:MOST_ADDRESSES]) or "none: no network yet") + more
    yield "node", snapshot.node
    if snapshot.hub is not None:
        yield "hub", snapshot.hub
    yield "broker", snapshot.broker or "not known yet"
    yield "pairing", pairing(snapshot)
    yield "experts", ", ".join(f"{name} {state}" for name, state in snapshot.experts) or "none"
    if snapshot.power is not None:
        yield "power", snapshot.power
    if snapshot.update is not None:
        yield "update", snapshot.update
    if snapshot.preflight is not None:
        yield "preflight", snapshot.preflight
    yield "errors", "; ".join(snapshot.errors) or "none"


def pairing(snapshot: Snapshot) -> str:
    """Say how pairing stands; the code is in it while it counts."""
    door = snapshot.door
    if door is None:
        return "the door is shut"
    if door.code is not None:
        return f"on the hub: rouse pair {snapshot.name}    code: {door.code}" + (
            f"    key {door.key}" if door.key else ""
        )
    if door.locked_for:
        return f"locked for {round(door.locked_for / 60 + 0.5)} minutes: too many wrong codes"
    return {"claimed": "a hub is pairing with this node", "paired": "paired"}.get(door.state, door.state)


def machine_line(machine: Machine) -> str:
    """Say how the machine is doing."""
    heat = f"   {machine.temperature:.0f} °C" if machine.temperature is not None else ""
    return f"load {machine.load:.1f} of {machine.cores}   memory {machine.memory:.0%}{heat}"


def _content(snapshot: Snapshot, *, keys: bool) -> RenderableType:
    told = dict(facts(snapshot))
    parts: list[RenderableType] = [Text(f" ROUSE   {told.pop('name')} ", style="bold reverse")]
    if snapshot.door is not None and snapshot.door.code is not None:
        parts += _code(snapshot)
        del told["pairing"]
    for error in snapshot.errors[:MOST_ERRORS]:
        parts.append(Text(f" ! {error}", style="bold red"))
    if len(snapshot.errors) > MOST_ERRORS:
        parts.append(Text(f" ! and {len(snapshot.errors) - MOST_ERRORS} more", style="bold red"))
    del told["errors"]
    del told["experts"]
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in told.items():
        table.add_row(f" {name}", value)
    table.add_row(" experts", _experts(snapshot))
    if snapshot.machine is not None:
        table.add_row(" machine", machine_line(snapshot.machine))
    parts += [Text(""), table]
    if keys and snapshot.door is not None:
        parts += [Text(""), Text(" r: another code", style="dim")]
    return Group(*parts)


def _code(snapshot: Snapshot) -> list[RenderableType]:
    door = snapshot.door
    if door is None or door.code is None:
        return []
    left = f"   (for {max(1, round((door.expires_in or 0) / 60))} more minutes)"
    return [
        Text(""),
        Text(" This machine belongs to no hub yet. On the hub, type", style="bold"),
        Text(f"     rouse pair {snapshot.name}", style="bold cyan"),
        Text.assemble(" and this code:   ", (f" {door.code} ", "bold black on white"), left),
        *([Text(f" This machine's key, as the hub's list shows it: {door.key}", style="dim")] if door.key else []),
    ]


def _experts(snapshot: Snapshot) -> Text:
    shown = Text()
    for number, (name, state) in enumerate(snapshot.experts[:MOST_EXPERTS]):
        shown.append(", " if number else "")
        shown.append(f"{name} ")
        shown.append(state, style={"ready": "green", "failed": "bold red", "starting": "yellow"}.get(state, ""))
    if len(snapshot.experts) > MOST_EXPERTS:
        shown.append(f" and {len(snapshot.experts) - MOST_EXPERTS} more")
    return shown if snapshot.experts else Text("none")
