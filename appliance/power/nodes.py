"""What the hub knows of each node's power: from the bus, and from its memory on disk of what the bus has forgotten.

The embedded broker forgets all when the hub restarts, and a node that sleeps can't repeat what it said. So what was
last heard of each node is kept in a file, and told anew after a restart (`appliance.power.memory`).
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from appliance.bus.client import Bus
from appliance.bus.messages import ExpertStatus, NodeAnnouncement, Presence
from appliance.bus.power_messages import NodePower
from appliance.bus.topics import EXPERT_STATUS, NODE_ANNOUNCEMENT, NODE_POWER, NODE_STATUS

_log = logging.getLogger(__name__)

MAX_NODES = 1000
MAX_EXPERTS = 100
"""Nodes, and experts of one, that are remembered: no flood of messages may fill the memory."""
FOR_EVER = 1e11


@dataclass(slots=True)
class KnownNode:
    """One node. Times named `…_at` are those of a monotonic clock."""

    name: str
    announcement: NodeAnnouncement | None = None
    power: NodePower | None = None
    online: bool = False
    experts: dict[str, ExpertStatus] = field(default_factory=dict)
    gone_at: float | None = None
    """When it was first missed: when its presence ended, or when this process began without it."""
    heard: bool = False
    """Whether the bus told of its presence since this process began."""
    off_until: float | None = None
    """Until when somebody wants it to stay off, as Unix time."""

    @property
    def is_awake(self) -> bool:
        """Whether it is there and can be asked."""
        return self.online and (self.power is None or self.power.state == "awake")

    @property
    def is_going(self) -> bool:
        """Whether it has said that it is about to sleep, and is still there."""
        return self.online and self.power is not None and self.power.state == "going_to_sleep"

    @property
    def sleeps(self) -> bool:
        """Whether it has said goodbye, or was about to when it went: it is not missed, and can be woken."""
        if self.power is None:
            return False
        return self.power.state in {"asleep", "off"} or (self.power.state == "going_to_sleep" and not self.online)

    @property
    def was_stopped(self) -> bool:
        """Whether its daemon was ended by hand: all its experts were stopped before it left."""
        return bool(self.experts) and all(expert.state == "stopped" for expert in self.experts.values())

    @property
    def is_lost(self) -> bool:
        """Whether it is gone without goodbye."""
        return not self.online and not self.sleeps and not self.was_stopped

    @property
    def macs(self) -> tuple[str, ...]:
        """The hardware addresses that it announced."""
        return self.announcement.macs if self.announcement is not None else ()


class NodeBook:
    """All nodes but this hub's own, kept up to date by the bus."""

    def __init__(
        self,
        *,
        own: str,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Take the name of this machine's own node, which is neither woken nor missed."""
        self._own = own
        self._clock = clock
        self._wall = wall
        self._nodes: dict[str, KnownNode] = {}
        self._changed = asyncio.Event()
        self._full = False
        self.version = 0
        """Counts changes of what is worth remembering."""

    def attach(self, bus: Bus) -> None:
        """Subscribe to what the nodes say."""
        bus.subscribe(NODE_ANNOUNCEMENT, self._on_announcement)
        bus.subscribe(NODE_STATUS, self._on_presence)
        bus.subscribe(NODE_POWER, self._on_power)
        bus.subscribe(EXPERT_STATUS, self._on_expert)

    def remember(self, nodes: Iterable[KnownNode]) -> None:
        """Take in what an earlier process knew; call it before the bus is entered."""
        for node in nodes:
            if node.name != self._own and len(self._nodes) < MAX_NODES:
                node.gone_at = self._clock()
                self._nodes[node.name] = node

    def get(self, name: str) -> KnownNode | None:
        """Return a node that is known."""
        return self._nodes.get(name)

    @property
    def all(self) -> tuple[KnownNode, ...]:
        """All nodes that are known."""
        return tuple(self._nodes.values())

    def with_expert(self, expert: str) -> tuple[KnownNode, ...]:
        """Return the nodes that have an expert of a name."""
        return tuple(node for node in self._nodes.values() if expert in node.experts)

    def is_kept_off(self, node: KnownNode) -> bool:
        """Whether somebody wants it to stay off."""
        return node.off_until is not None and node.off_until > self._wall()

    def keep_off(self, name: str, until: float | None) -> None:
        """Note that somebody wants a node to stay off: until a time, or until somebody wants it back."""
        if (node := self._nodes.get(name)) is not None:
            node.off_until = FOR_EVER if until is None else until
            self._note(remember=True)

    def let_up(self, name: str) -> None:
        """Note that a node may be woken again."""
        node = self._nodes.get(name)
        if node is not None and node.off_until is not None:
            node.off_until = None
            self._note(remember=True)

    def forget(self, name: str) -> None:
        """Let a node go, because it does not belong to this hub any more."""
        if self._nodes.pop(name, None) is not None:
            self._note(remember=True)

    async def change(self) -> None:
        """Wait for the next message of a node."""
        await self._changed.wait()

    def missing_for(self, node: KnownNode) -> float:
        """Return for how many seconds a node has not been there."""
        return 0.0 if node.online or node.gone_at is None else self._clock() - node.gone_at

    async def _on_announcement(self, announcement: NodeAnnouncement | None, levels: Mapping[str, str]) -> None:
        if announcement is None:
            self.forget(levels["node"])
        elif (node := self._node(levels)) is not None:
            changed = node.announcement != announcement
            node.announcement = announcement
            self._note(remember=changed)

    async def _on_presence(self, presence: Presence | None, levels: Mapping[str, str]) -> None:
        node = self._nodes.get(levels["node"]) if presence is None else self._node(levels)
        if node is None:
            return
        online = presence is not None and presence.state == "online"
        if online:
            node.gone_at = None
        elif node.online or node.gone_at is None:
            node.gone_at = self._clock()
        node.online = online
        node.heard = True
        self._note(remember=False)

    async def _on_power(self, power: NodePower | None, levels: Mapping[str, str]) -> None:
        node = self._nodes.get(levels["node"]) if power is None else self._node(levels)
        if node is not None:
            before = node.power.state if node.power is not None else None
            node.power = power
            self._note(remember=before != (power.state if power is not None else None))

    async def _on_expert(self, status: ExpertStatus | None, levels: Mapping[str, str]) -> None:
        name = levels["expert"]
        node = self._nodes.get(levels["node"]) if status is None else self._node(levels)
        if node is None:
            return
        before = node.experts.pop(name, None)
        if status is not None and len(node.experts) < MAX_EXPERTS:
            node.experts[name] = status
        self._note(remember=before != status)

    def _node(self, levels: Mapping[str, str]) -> KnownNode | None:
        name = levels["node"]
        if name == self._own:
            return None
        node = self._nodes.get(name)
        if node is None:
            if len(self._nodes) >= MAX_NODES:
                if not self._full:
                    self._full = True
                    _log.error("there are more than %d nodes on the bus; further ones are not woken", MAX_NODES)
                return None
            node = self._nodes[name] = KnownNode(name, gone_at=self._clock())
        return node

    def _note(self, *, remember: bool) -> None:
        if remember:
            self.version += 1
        self._changed.set()
        self._changed = asyncio.Event()
