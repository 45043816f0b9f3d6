"""The experts that are known: the house's own from their retained messages on the bus, others from the settings."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from appliance.bus.client import Bus
from appliance.bus.messages import ExpertStatus, NodeTelemetry, Presence
from appliance.bus.power_messages import NodePower, PowerState
from appliance.bus.topics import EXPERT_STATUS, NODE_POWER, NODE_STATUS, NODE_TELEMETRY
from appliance.gateway.balance import Balance
from appliance.gateway.health import Health, Key
from appliance.routing.candidates import AUTO, Endpoint, names_of

_log = logging.getLogger(__name__)

MAX_EXPERTS = 1000
"""Experts, and nodes, that are remembered: no flood of messages may fill the memory."""

NEWS_SECONDS = 2.0
"""How long what a node says of an expert that has just ended may take; on a busy bus it is some milliseconds."""

RETURN_SECONDS = 20.0
"""How long a node that was lost may take to come back; it is more than the bus's longest pause between attempts."""

EXTERNAL_NODE = "external"
"""What stands for the node of an expert that is not on the bus. A node of the house can't take that name."""


class ExpertRegistry:
    """Which experts exist, and which are ready. What is new of one is told to `health` and `balance`."""

    def __init__(
        self,
        *,
        health: Health,
        balance: Balance,
        externals: Iterable[Endpoint] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._health = health
        self._balance = balance
        self._externals = tuple(externals)
        self._clock = clock
        self._experts: dict[Key, ExpertStatus] = {}
        self._crashed: set[Key] = set()
        self._offline: dict[str, float] = {}
        """When each node was lost."""
        self._power: dict[str, PowerState] = {}
        """What each node that is not awake said last: it is about to sleep, or does, or is off."""
        self._changed = asyncio.Event()
        self._full = False
        self._ready: tuple[Endpoint, ...] | None = None
        self._asleep: tuple[Endpoint, ...] | None = None

    def attach(self, bus: Bus) -> None:
        """Subscribe to what the nodes say."""
        bus.subscribe(EXPERT_STATUS, self._on_expert)
        bus.subscribe(NODE_STATUS, self._on_node)
        bus.subscribe(NODE_POWER, self._on_power)
        bus.subscribe(NODE_TELEMETRY, self._on_telemetry)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all experts that are known, ready or not."""
        return tuple(sorted({name for _, name in self._experts} | set(names_of(self._externals))))

    @property
    def ready(self) -> tuple[Endpoint, ...]:
        """The endpoints that can be asked now."""
        if self._ready is None:
            own = (
                _endpoint(key, status, status.url)
                for key, status in self._experts.items()
                if status.state == "ready"
                and status.url is not None
                and key[0] not in self._offline
                and key[0] not in self._power
            )
            self._ready = (*own, *self._externals)
        return self._ready

    @property
    def asleep(self) -> tuple[Endpoint, ...]:
        """The endpoints on nodes that sleep, are off, or are about to: they were ready and will be again."""
        if self._asleep is None:
            self._asleep = tuple(
                replace(_endpoint(key, status, status.url), asleep=True)
                for key, status in self._experts.items()
                if key[0] in self._power and status.state == "ready" and status.url is not None
            )
        return self._asleep

    def endpoint(self, key: Key) -> Endpoint | None:
        """Return an endpoint that is ready."""
        return next((one for one in self.ready if one.key == key), None)

    def is_coming(self, key: Key) -> bool:
        """Whether an expert is about to be ready, if its node is awake."""
        status = self._experts.get(key)
        return status is not None and self._is_coming(key, status)

    def expected(self, wanted: Sequence[str]) -> tuple[str, ...]:
        """Names of the experts that a request for some, or for `auto`, should wait for.

        Those are the ones whose model is being loaded; those that crashed a moment ago, for their node starts
        them again; and those of a node that was lost a moment ago: after a restart of the broker, the nodes
        are back some seconds after the hub. An expert that fails to start is not worth waiting for, and one whose
        node sleeps must be woken instead.
        """
        return tuple(
            key[1]
            for key, status in self._experts.items()
            if (AUTO in wanted or key[1] in wanted) and self._is_coming(key, status)
        )

    def _is_coming(self, key: Key, status: ExpertStatus) -> bool:
        if key[0] in self._power:
            return False
        lost_at = self._offline.get(key[0])
        if lost_at is not None and lost_at + RETURN_SECONDS <= self._clock():
            return False
        returns = lost_at is not None and status.state == "ready"
        return returns or status.state == "starting" or key in self._crashed

    def troubles(self, wanted: Sequence[str]) -> tuple[str, ...]:
        """Why the experts that failed did so, one sentence each."""
        return tuple(
            f"{name} on {node} failed: {status.error}"
            for (node, name), status in self._experts.items()
            if (AUTO in wanted or name in wanted) and status.state == "failed" and node not in self._offline
        )

    async def change(self) -> None:
        """Wait for the next message of a node or expert, or for a second: time alone may end an expectation."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                await self._changed.wait()

    async def has_news(self, endpoints: Sequence[Endpoint]) -> bool:
        """Return whether a node has, or soon will have, something to say of one of its experts that was ready."""
        own = [endpoint for endpoint in endpoints if not endpoint.external]
        try:
            async with asyncio.timeout(NEWS_SECONDS):
                while own and all(self.endpoint(one.key) == one for one in own):
                    await self.change()
        except TimeoutError:
            return False
        return bool(own)

    async def _on_expert(self, status: ExpertStatus | None, levels: Mapping[str, str]) -> None:
        key = levels["node"], levels["expert"]
        if key[0] == EXTERNAL_NODE:
            _log.error("a node calls itself %r, which no node may; give it another node.name", EXTERNAL_NODE)
            return
        self._health.forget(key)
        before = self._experts.pop(key, None)
        was_ready = before is not None and before.state == "ready"
        if status is None or status.state != "ready":
            self._balance.forget(key)
        if status is not None and status.state == "failed" and was_ready:
            self._crashed.add(key)
        else:
            self._crashed.discard(key)
        if status is not None and self._has_room(len(self._experts)):
            self._experts[key] = status
        self._announce_change()

    async def _on_node(self, presence: Presence | None, levels: Mapping[str, str]) -> None:
        lost_at = self._offline.pop(levels["node"], self._clock())
        if presence is not None and presence.state == "offline" and self._has_room(len(self._offline)):
            self._offline[levels["node"]] = lost_at
            self._balance.forget_node(levels["node"])
        self._announce_change()

    async def _on_power(self, power: NodePower | None, levels: Mapping[str, str]) -> None:
        node = levels["node"]
        before = self._power.pop(node, None)
        if power is not None and power.state != "awake" and self._has_room(len(self._power)):
            self._power[node] = power.state
        if self._power.get(node) != before:
            for key in self._experts:
                if key[0] == node:
                    self._health.forget(key)  # what failed while it fell asleep says nothing of it awake
            self._announce_change()

    async def _on_telemetry(self, telemetry: NodeTelemetry | None, levels: Mapping[str, str]) -> None:
        node = levels["node"]
        if telemetry is None:
            self._balance.forget_node(node)
        elif any(node == key[0] for key in self._experts):
            self._balance.told(node, telemetry.active_requests + telemetry.queued_requests)

    def _has_room(self, count: int) -> bool:
        if count >= MAX_EXPERTS and not self._full:
            self._full = True
            _log.error("there are more than %d experts or nodes on the bus; further ones are ignored", MAX_EXPERTS)
        return count < MAX_EXPERTS

    def _announce_change(self) -> None:
        self._ready = self._asleep = None
        self._changed.set()
        self._changed = asyncio.Event()


def _endpoint(key: Key, status: ExpertStatus, url: str) -> Endpoint:
    node, name = key
    return Endpoint(
        name=name,
        node=node,
        url=url.rstrip("/"),
        capabilities=frozenset(status.capabilities),
        context=status.context,
        slots=status.slots or 1,
    )
