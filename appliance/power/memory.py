"""The hub's memory of its nodes: a file that outlives restarts, and what is told anew on the bus from it."""

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from appliance.bus.client import Bus
from appliance.bus.errors import BusUnavailableError
from appliance.bus.messages import ExpertStatus, NodeAnnouncement, Presence, Slug
from appliance.bus.power_messages import NodePower
from appliance.bus.topics import EXPERT_STATUS, NODE_ANNOUNCEMENT, NODE_POWER, NODE_STATUS, Topic
from appliance.durable_files import write
from appliance.power.nodes import KnownNode, NodeBook

_log = logging.getLogger(__name__)

RETAINED_SECONDS = 1.0
"""How long the broker may take to send what it has kept."""
RETURN_SECONDS = 20.0
"""How long a node that was awake may take to come back after the broker; more than the bus's longest pause."""
WRITE_AGAIN_SECONDS = 60.0
PUBLISH_SECONDS = 10.0


class _Kept(BaseModel):
    model_config = ConfigDict(extra="ignore")

    announcement: NodeAnnouncement | None = None
    power: NodePower | None = None
    experts: dict[Slug, ExpertStatus] = {}
    off_until: float | None = None


class _File(BaseModel):
    model_config = ConfigDict(extra="ignore")

    nodes: dict[Slug, _Kept] = {}


class NodeMemory:
    """The file. It is written whole or not at all, and only when something worth remembering has changed."""

    def __init__(self, path: Path, book: NodeBook) -> None:
        """Take where the file is, and what it holds."""
        self._path = path
        self._book = book

    def load(self) -> None:
        """Tell the book what an earlier process knew. A file that can't be read is put aside: the nodes tell anew."""
        try:
            kept = _File.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            reason = _first(error) if isinstance(error, ValidationError) else str(error)
            aside = self._path.with_suffix(".unreadable")
            _log.error("%s: %s; it is put aside as %s, and nodes that sleep are forgotten", self._path, reason, aside)
            try:
                self._path.replace(aside)
            except OSError as failure:
                _log.error("%s: %s", aside, failure)
            return
        self._book.remember(
            KnownNode(name, one.announcement, one.power, experts=dict(one.experts), off_until=one.off_until)
            for name, one in kept.nodes.items()
        )

    async def run(self) -> None:
        """Write whenever there is something new, until cancelled."""
        written = -1
        while True:
            if self._book.version != written:
                version = self._book.version
                if not await self._save():
                    await asyncio.sleep(WRITE_AGAIN_SECONDS)
                    continue
                written = version
            else:
                await self._book.change()

    async def _save(self) -> bool:
        try:
            await asyncio.to_thread(write, self._path, self._content(), mode=0o600)
        except OSError as error:
            _log.error(
                "%s: can't be written: %s. Nodes that sleep may be forgotten at the next start.", self._path, error
            )
            return False
        return True

    def _content(self) -> bytes:
        nodes = {
            node.name: _Kept(
                announcement=node.announcement, power=node.power, experts=node.experts, off_until=node.off_until
            )
            for node in self._book.all
        }
        return _File(nodes=nodes).model_dump_json(exclude_none=True).encode() + b"\n"


class Reminder:
    """Tells the bus what it has forgotten of the nodes that can't tell themselves.

    A node may return at the very moment, and the hub's message, though older, reach the broker after the node's. The
    hub sees both in the broker's order, and then says again what the node said.
    """

    def __init__(self, *, bus: Bus, book: NodeBook) -> None:
        """Take the bus, not yet entered, and what is known."""
        self._bus = bus
        self._book = book
        self._heard: set[str] = set()
        self._told: dict[str, Any] = {}
        """By topic: what was said in a node's place, until it has come back from the broker."""
        self._newer: dict[str, Any] = {}
        self._again: asyncio.Queue[tuple[Topic[Any], Any, dict[str, str]]] = asyncio.Queue()
        for topic in (NODE_STATUS, NODE_ANNOUNCEMENT, NODE_POWER, EXPERT_STATUS):
            self._listen(topic)

    def _listen(self, topic: Topic[Any]) -> None:
        async def note(message: Any, levels: Mapping[str, str]) -> None:
            name = topic.at(**levels)
            self._heard.add(name)
            if name not in self._told:
                return
            if message != self._told[name]:
                self._newer[name] = message
                return
            del self._told[name]
            newer = self._newer.pop(name, None)
            if newer is not None:
                self._again.put_nowait((topic, newer, dict(levels)))

        self._bus.subscribe(topic, note)

    async def run(self) -> None:
        """Tell of the nodes that sleep at once, and of those that are missing when they have had time to return."""
        await self._until_connected()
        await asyncio.sleep(RETAINED_SECONDS)
        await self._tell([node for node in self._book.all if node.sleeps])
        waiting = asyncio.create_task(self._tell_of_missing(), name="nodes that do not return")
        try:
            while True:
                topic, message, levels = await self._again.get()
                await self._publish(topic, message, levels)
        finally:
            waiting.cancel()

    async def _tell_of_missing(self) -> None:
        await asyncio.sleep(RETURN_SECONDS)
        await self._tell([node for node in self._book.all if not node.online])

    async def _until_connected(self) -> None:
        while not self._bus.connected:
            try:
                await self._bus.wait_connected(60)
            except BusUnavailableError:
                continue

    async def _tell(self, nodes: list[KnownNode]) -> None:
        for node in nodes:
            levels = {"node": node.name}
            for topic, message in (
                (NODE_ANNOUNCEMENT, node.announcement),
                (NODE_POWER, node.power),
                (NODE_STATUS, Presence(state="offline")),
            ):
                await self._tell_of(topic, message, levels)
            for expert, status in tuple(node.experts.items()):
                await self._tell_of(EXPERT_STATUS, status, {**levels, "expert": expert})

    async def _tell_of(self, topic: Topic[Any], message: Any, levels: dict[str, str]) -> None:
        name = topic.at(**levels)
        node = self._book.get(levels["node"])
        if message is None or name in self._heard or node is None or node.online:
            return
        self._told[name] = message
        if not await self._publish(topic, message, levels):
            self._told.pop(name, None)

    async def _publish(self, topic: Topic[Any], message: Any, levels: dict[str, str]) -> bool:
        try:
            await self._bus.publish(topic, message, timeout=PUBLISH_SECONDS, **levels)
        except BusUnavailableError as error:
            _log.warning("the bus could not be told of node %s: %s", levels["node"], error)
            return False
        return True


def _first(error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(str(part) for part in problem["loc"])
    return f"{where}: {problem['msg']}" if where else str(problem["msg"])
