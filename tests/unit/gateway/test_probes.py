"""Which endpoints are probed, and how many at a time."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prometheus_client import CollectorRegistry

from appliance.gateway.balance import Balance
from appliance.gateway.externals import AccessBook
from appliance.gateway.health import Health
from appliance.gateway.metrics import GatewayMetrics
from appliance.gateway.probes import AT_A_TIME, IDLE_FACTOR, JITTER, Prober
from appliance.gateway.registry import ExpertRegistry
from appliance.gateway.upstream import Upstream
from appliance.routing.candidates import Endpoint
from appliance.settings.model import GatewaySettings

KEY = ("external", "e0")


class Parts:
    """A prober and what it looks at."""

    def __init__(self, upstream: Upstream, count: int, interval: float) -> None:
        endpoints = [
            Endpoint(f"e{number}", "external", "http://127.0.0.1:9/v1", frozenset()) for number in range(count)
        ]
        self.health = Health()
        self.balance = Balance()
        self.endpoint = endpoints[0]
        self.prober = Prober(
            upstream=upstream,
            registry=ExpertRegistry(health=self.health, balance=self.balance, externals=endpoints),
            health=self.health,
            balance=self.balance,
            metrics=GatewayMetrics(CollectorRegistry()),
            interval=interval,
            chance=lambda low, _high: low,
        )

    def due_after(self, now: float, limit: float = 100) -> float | None:
        """Return after how many seconds the first endpoint is due."""
        for tenth in range(int(limit * 10)):
            if self.prober._is_due(KEY, now + tenth / 10):
                return tenth / 10
        return None


class SlowUpstream(Upstream):
    """Answers probes late, and notes how many there are."""

    def __init__(self) -> None:
        super().__init__(settings=GatewaySettings(), access=AccessBook(expert_key="key", externals={}))
        self.at_once = 0
        self.most = 0
        self.probed: list[str] = []

    async def probe(self, endpoint: Endpoint) -> bool:
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        await asyncio.sleep(0.02)
        self.at_once -= 1
        self.probed.append(endpoint.name)
        return False


@asynccontextmanager
async def parts(count: int = 1, interval: float = 10.0) -> AsyncIterator[tuple[Parts, SlowUpstream]]:
    async with SlowUpstream() as upstream:
        yield Parts(upstream, count, interval), upstream


async def test_an_idle_endpoint_is_probed_less_often_than_one_that_failed() -> None:
    async with parts() as (found, _):
        now = time.monotonic()
        idle = found.due_after(now)
        assert idle == 10 * IDLE_FACTOR * (1 - JITTER)
        found.health.failure(KEY, found.health.begin(KEY), silent=True)
        failed = found.due_after(now + idle)
        assert failed == 10 * (1 - JITTER)


async def test_an_endpoint_that_answers_requests_is_left_alone() -> None:
    async with parts() as (found, _):
        now = time.monotonic()
        found.balance.begin(found.endpoint, [])
        assert found.due_after(now) is None
        found.balance.end(found.endpoint)
        found.prober._is_due(KEY, now - 1000)
        found.health.answer(KEY)
        assert found.due_after(now, 20) is None
        assert found.due_after(now) is not None


async def test_a_few_at_a_time() -> None:
    async with parts(count=40, interval=0.05) as (found, upstream), found.prober, asyncio.timeout(10):
        while len(upstream.probed) < 80:
            await asyncio.sleep(0.01)
    assert upstream.most == AT_A_TIME
    assert len(set(upstream.probed)) == 40
    assert {found.health.state(("external", f"e{number}")) for number in range(40)} == {"open"}
