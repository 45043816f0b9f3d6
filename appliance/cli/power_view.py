"""What `rouse power` sees on the bus: each node with its power, and what is wrong with it."""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from rich.table import Table

from appliance.bus.client import Bus
from appliance.bus.errors import BusError
from appliance.bus.messages import ExpertStatus, NodeAnnouncement, Presence
from appliance.bus.power_messages import NodeEnergy, NodePower, PowerCommand
from appliance.bus.topics import (
    EXPERT_STATUS,
    NODE_ANNOUNCEMENT,
    NODE_ENERGY,
    NODE_POWER,
    NODE_STATUS,
    NODE_TELEMETRY,
    POWER_COMMAND,
    REPAIR_NOTICE,
    Topic,
)
from appliance.bus.waking_messages import RepairNotice
from appliance.cli.command_line import CommandError
from appliance.security.broker import connect_to
from appliance.security.secrets import SecretError
from appliance.settings.model import Settings

CONNECT_SECONDS = 10.0
RETAINED_SECONDS = 1.0
"""How long the broker may take to send what it keeps."""

type Action = Literal["sleep", "wake", "stay_awake", "stay_off", "recover"]


@dataclass(slots=True)
class NodeView:
    """One node."""

    announcement: NodeAnnouncement | None = None
    presence: Presence | None = None
    power: NodePower | None = None
    energy: NodeEnergy | None = None
    repair: RepairNotice | None = None
    experts: dict[str, ExpertStatus] = field(default_factory=dict)

    @property
    def state(self) -> str:
        """Awake, going to sleep, asleep, off, or lost."""
        online = self.presence is not None and self.presence.state == "online"
        said = self.power.state if self.power is not None else "awake"
        return "lost" if said == "awake" and not online else said

    def as_json(self, name: str) -> dict[str, Any]:
        """Return what is known, for scripts."""
        return {
            "node": name,
            "state": self.state,
            "power": self.power.model_dump() if self.power is not None else None,
            "energy": self.energy.model_dump() if self.energy is not None else None,
            "experts": sorted(self.experts),
            "macs": list(self.announcement.macs) if self.announcement is not None else [],
            "repair": self.repair.model_dump() if self.repair is not None else None,
        }


class PowerView:
    """All nodes, kept up to date while the bus is connected."""

    def __init__(self, bus: Bus) -> None:
        """Take a bus that is not yet entered."""
        self._bus = bus
        self.nodes: dict[str, NodeView] = {}
        self._changed = asyncio.Event()
        for topic, name in (
            (NODE_ANNOUNCEMENT, "announcement"),
            (NODE_STATUS, "presence"),
            (NODE_POWER, "power"),
            (NODE_ENERGY, "energy"),
            (REPAIR_NOTICE, "repair"),
        ):
            self._follow(topic, name)
        bus.subscribe(EXPERT_STATUS, self._on_expert)

    def _follow(self, topic: Topic[Any], name: str) -> None:
        async def note(message: object, levels: Mapping[str, str]) -> None:
            setattr(self.nodes.setdefault(levels["node"], NodeView()), name, message)
            self._change()

        self._bus.subscribe(topic, note)

    async def _on_expert(self, status: ExpertStatus | None, levels: Mapping[str, str]) -> None:
        experts = self.nodes.setdefault(levels["node"], NodeView()).experts
        if status is None:
            experts.pop(levels["expert"], None)
        else:
            experts[levels["expert"]] = status
        self._change()

    def _change(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    @property
    def announced(self) -> dict[str, NodeView]:
        """Those that say what they are, by name."""
        return {name: self.nodes[name] for name in sorted(self.nodes) if self.nodes[name].announcement is not None}

    async def settle(self) -> None:
        """Wait until the broker has sent what it keeps."""
        await self._bus.wait_connected(CONNECT_SECONDS)
        await asyncio.sleep(RETAINED_SECONDS)

    def found(self, node: str) -> NodeView:
        """Return a node.

        Raises:
            CommandError: there is no such node.
        """
        found = self.announced.get(node)
        if found is None:
            known = ", ".join(self.announced) or "none"
            raise CommandError(f"there is no node {node!r} on the bus (there are: {known})")
        return found

    async def forget(self, node: str) -> None:
        """Take all that is kept of a node from the bus.

        Raises:
            CommandError: there is no such node, or it is there.
        """
        found = self.found(node)
        if found.presence is not None and found.presence.state == "online":
            raise CommandError(f"{node} is on the bus; end its daemon first")
        for expert in tuple(found.experts):
            await self._bus.withdraw(EXPERT_STATUS, node=node, expert=expert)
        kept: tuple[Topic[Any], ...] = (NODE_TELEMETRY, NODE_ENERGY, NODE_POWER, NODE_STATUS, REPAIR_NOTICE)
        for topic in (*kept, NODE_ANNOUNCEMENT):
            await self._bus.withdraw(topic, node=node)

    async def ask(self, node: str, action: Action, *, until: float | None = None, reason: str = "") -> NodeView:
        """Send a command for a node, and return the node.

        Raises:
            CommandError: there is no such node.
        """
        found = self.found(node)
        command = PowerCommand(
            id=secrets.token_hex(16), action=action, until=until, reason=reason or "asked for by rouse power"
        )
        await self._bus.publish(POWER_COMMAND, command, node=node)
        return found

    async def until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait for something to be so; return whether it is."""
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    await self._changed.wait()
        except TimeoutError:
            return condition()
        return True


def look[T](settings: Settings, work: Callable[[PowerView], Awaitable[T]]) -> T:
    """Run something that looks at the bus.

    Raises:
        CommandError: the broker can't be reached.
    """

    async def run() -> T:
        bus = Bus(connect_to(settings), identifier=f"rouse-power-{secrets.token_hex(4)}")
        view = PowerView(bus)
        async with bus:
            await view.settle()
            return await work(view)

    try:
        return asyncio.run(run())
    except (BusError, SecretError) as error:
        raise CommandError(str(error)) from error


def table(nodes: Mapping[str, NodeView]) -> Table:
    """Return the nodes as a table."""
    shown = Table("Node", "State", "For", "Experts", "Why", "W", "kWh saved", box=None, pad_edge=False)
    for name, node in nodes.items():
        power, energy = node.power, node.energy
        why = node.repair.summary if node.repair is not None else (power.reason if power is not None else "")
        shown.add_row(
            name,
            f"{node.state.replace('_', ' ')}{' !' if node.repair is not None else ''}",
            duration(time.time() - power.since) if power is not None else "",
            ", ".join(sorted(node.experts)),
            printable(why),
            f"{energy.watts:.0f}" if energy is not None else "",
            f"{energy.saved_kwh:.1f}" if energy is not None else "",
        )
    return shown


def printable(text: str) -> str:
    """Return text from the bus without what would move a terminal's cursor."""
    return "".join(character if character.isprintable() else " " for character in text)


def duration(seconds: float) -> str:
    """Return a time span in its two largest units."""
    minutes = max(0, int(seconds)) // 60
    if minutes < 1:
        return f"{max(0, int(seconds))} s"
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
