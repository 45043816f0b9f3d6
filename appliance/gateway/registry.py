"""The experts that are known, from their retained messages on the bus."""

import time
from collections.abc import Callable, Mapping

from appliance.bus.client import Bus
from appliance.bus.messages import ExpertStatus, Presence
from appliance.bus.topics import EXPERT_STATUS, NODE_STATUS
from appliance.routing.candidates import Endpoint

COOL_DOWN_SECONDS = 5.0
"""How long an endpoint that failed is asked last. Its next status message ends it early."""


class ExpertRegistry:
    """Which experts exist, which are ready, and which have just failed."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._experts: dict[tuple[str, str], ExpertStatus] = {}
        self._offline: set[str] = set()
        self._failed_until: dict[tuple[str, str], float] = {}

    def attach(self, bus: Bus) -> None:
        """Subscribe to what the nodes say."""
        bus.subscribe(EXPERT_STATUS, self._on_expert)
        bus.subscribe(NODE_STATUS, self._on_node)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all experts that are known, ready or not."""
        return tuple(sorted({status.expert for status in self._experts.values()}))

    @property
    def ready(self) -> tuple[Endpoint, ...]:
        """The endpoints that can be asked now; those that failed a moment ago come last."""
        now = self._clock()
        endpoints = [
            Endpoint(status.expert, node, status.url, frozenset(status.capabilities))
            for (node, _), status in self._experts.items()
            if status.state == "ready" and status.url is not None and node not in self._offline
        ]
        return tuple(sorted(endpoints, key=lambda e: self._failed_until.get((e.node, e.name), 0.0) > now))

    def is_suspect(self, endpoint: Endpoint) -> bool:
        """Whether the endpoint failed a moment ago."""
        return self._failed_until.get((endpoint.node, endpoint.name), 0.0) > self._clock()

    def report_failure(self, endpoint: Endpoint) -> None:
        """Remember that the endpoint did not answer."""
        self._failed_until[endpoint.node, endpoint.name] = self._clock() + COOL_DOWN_SECONDS

    async def _on_expert(self, status: ExpertStatus | None, levels: Mapping[str, str]) -> None:
        key = levels["node"], levels["expert"]
        self._failed_until.pop(key, None)
        if status is None:
            self._experts.pop(key, None)
        else:
            self._experts[key] = status

    async def _on_node(self, presence: Presence | None, levels: Mapping[str, str]) -> None:
        if presence is not None and presence.state == "offline":
            self._offline.add(levels["node"])
        else:
            self._offline.discard(levels["node"])
