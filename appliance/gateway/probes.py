"""Asks endpoints for their health, so that no request has to find out.

Those that answer requests are left alone. An endpoint that failed is probed until it is back; one that is idle is
probed from time to time. At most a few probes run at a time, and chance spreads them.
"""

import asyncio
import random
import time
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Self

from appliance.gateway.balance import Balance
from appliance.gateway.health import Health, Key
from appliance.gateway.metrics import GatewayMetrics
from appliance.gateway.registry import ExpertRegistry
from appliance.gateway.upstream import Upstream
from appliance.routing.candidates import Endpoint

AT_A_TIME = 8
JITTER = 0.25
"""Share of the interval by which a probe may come earlier or later."""
IDLE_FACTOR = 3
"""How many times less often an idle endpoint is probed than one that failed."""


class Prober:
    """Probes in the background: an async context manager."""

    def __init__(
        self,
        *,
        upstream: Upstream,
        registry: ExpertRegistry,
        health: Health,
        balance: Balance,
        metrics: GatewayMetrics,
        interval: float,
        chance: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """Take the parts, and the seconds between two probes of an endpoint that failed."""
        self._upstream = upstream
        self._registry = registry
        self._health = health
        self._balance = balance
        self._metrics = metrics
        self._interval = interval
        self._chance = chance
        self._last: dict[Key, tuple[float, float]] = {}
        """When each endpoint was probed last, and by which factor its next pause differs."""
        self._free = asyncio.Semaphore(AT_A_TIME)
        self._running: dict[Key, asyncio.Task[None]] = {}
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="probes")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tasks = [*self._running.values(), *([self._task] if self._task is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            now = time.monotonic()
            endpoints = {endpoint.key: endpoint for endpoint in self._registry.ready}
            self._last = {key: last for key, last in self._last.items() if key in endpoints}
            for key, endpoint in endpoints.items():
                if key not in self._running and self._is_due(key, now):
                    task = asyncio.create_task(self._probe(endpoint), name=f"probe {endpoint.name}")
                    self._running[key] = task
                    task.add_done_callback(partial(self._end, key))
            await asyncio.sleep(min(1.0, self._interval / 4))

    def _is_due(self, key: Key, now: float) -> bool:
        """Whether to probe now; an endpoint that is seen for the first time waits for its turn."""
        closed = self._health.state(key) == "closed"
        if closed and self._balance.in_flight(key):
            return False
        pause = self._interval * (IDLE_FACTOR if closed else 1)
        probed, factor = self._last.setdefault(key, (now, self._chance(1 - JITTER, 1 + JITTER)))
        heard = max(probed, self._health.answered_at(key)) if closed else probed
        if now < heard + pause * factor:
            return False
        self._last[key] = now, self._chance(1 - JITTER, 1 + JITTER)
        return True

    def _end(self, key: Key, _task: asyncio.Task[None]) -> None:
        del self._running[key]

    async def _probe(self, endpoint: Endpoint) -> None:
        async with self._free:
            alive = await self._upstream.probe(endpoint)
        if endpoint not in self._registry.ready:
            return
        self._metrics.probes.labels(expert=endpoint.name, outcome="alive" if alive else "dead").inc()
        self._health.probed(endpoint.key, alive=alive)
