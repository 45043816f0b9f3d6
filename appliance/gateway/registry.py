"""The experts that are known, from their retained messages on the bus."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from appliance.bus.client import Bus
from appliance.bus.messages import ExpertStatus, Presence
from appliance.bus.topics import EXPERT_STATUS, NODE_STATUS
from appliance.routing.candidates import AUTO, Endpoint

_log = logging.getLogger(__name__)

FIRST_COOL_DOWN_SECONDS = 5.0
"""How long an endpoint that failed is asked last. Its next status message ends it early."""
LAST_COOL_DOWN_SECONDS = 300.0
"""The time doubles with each failure in a row, up to this."""
MAX_EXPERTS = 1000
"""Experts, and nodes, that are remembered: no flood of messages may fill the memory."""

type _Key = tuple[str, str]
"""Node and expert."""


@dataclass(frozen=True, slots=True)
class _Failures:
    """Failures in a row of an endpoint."""

    count: int
    until: float


class ExpertRegistry:
    """Which experts exist, which are ready, and which have just failed."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._experts: dict[_Key, ExpertStatus] = {}
        self._crashed: set[_Key] = set()
        self._offline: set[str] = set()
        self._failures: dict[_Key, _Failures] = {}
        self._changed = asyncio.Event()
        self._full = False

    def attach(self, bus: Bus) -> None:
        """Subscribe to what the nodes say."""
        bus.subscribe(EXPERT_STATUS, self._on_expert)
        bus.subscribe(NODE_STATUS, self._on_node)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all experts that are known, ready or not."""
        return tuple(sorted({name for _, name in self._experts}))

    @property
    def ready(self) -> tuple[Endpoint, ...]:
        """The endpoints that can be asked now."""
        return tuple(
            Endpoint(name, node, status.url, frozenset(status.capabilities))
            for (node, name), status in self._experts.items()
            if status.state == "ready" and status.url is not None and node not in self._offline
        )

    def loading(self, model: str) -> tuple[str, ...]:
        """Names of the experts that a request for a model may wait for.

        Those are the ones whose model is being loaded, and those that crashed a moment ago: their node
        starts them again. One that fails to start, and fails again, is not worth waiting for.
        """
        return tuple(
            name
            for (node, name), status in self._experts.items()
            if model in {AUTO, name}
            and node not in self._offline
            and (status.state == "starting" or (node, name) in self._crashed)
        )

    def troubles(self, model: str) -> tuple[str, ...]:
        """Why the experts that failed did so, one sentence each."""
        return tuple(
            f"{name} on {node} failed: {status.error}"
            for (node, name), status in self._experts.items()
            if model in {AUTO, name} and status.state == "failed" and node not in self._offline
        )

    async def change(self) -> None:
        """Wait for the next message of a node or expert."""
        await self._changed.wait()

    def is_suspect(self, endpoint: Endpoint) -> bool:
        """Whether the endpoint failed a moment ago."""
        failures = self._failures.get((endpoint.node, endpoint.name))
        return failures is not None and failures.until > self._clock()

    def report_failure(self, endpoint: Endpoint) -> None:
        """Remember that the endpoint did not answer."""
        key = endpoint.node, endpoint.name
        count = self._failures[key].count + 1 if key in self._failures else 1
        cool_down = min(FIRST_COOL_DOWN_SECONDS * 2 ** min(count - 1, 10), LAST_COOL_DOWN_SECONDS)
        self._failures[key] = _Failures(count, self._clock() + cool_down)

    def report_answer(self, endpoint: Endpoint) -> None:
        """Remember that the endpoint answers."""
        self._failures.pop((endpoint.node, endpoint.name), None)

    async def _on_expert(self, status: ExpertStatus | None, levels: Mapping[str, str]) -> None:
        key = levels["node"], levels["expert"]
        self._failures.pop(key, None)
        before = self._experts.pop(key, None)
        was_ready = before is not None and before.state == "ready"
        if status is not None and status.state == "failed" and was_ready:
            self._crashed.add(key)
        else:
            self._crashed.discard(key)
        if status is not None and self._has_room(len(self._experts)):
            self._experts[key] = status
        self._announce_change()

    async def _on_node(self, presence: Presence | None, levels: Mapping[str, str]) -> None:
        self._offline.discard(levels["node"])
        if presence is not None and presence.state == "offline" and self._has_room(len(self._offline)):
            self._offline.add(levels["node"])
        self._announce_change()

    def _has_room(self, count: int) -> bool:
        if count >= MAX_EXPERTS and not self._full:
            self._full = True
            _log.error("there are more than %d experts or nodes on the bus; further ones are ignored", MAX_EXPERTS)
        return count < MAX_EXPERTS

    def _announce_change(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
