"""What the node daemon tells over HTTP: /health for people and scripts, /metrics for Prometheus.

Both are for this machine until the user opens them. /health is never secret; on another address than loopback,
/metrics wants a key.
"""

import hmac
import ipaddress
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from appliance.bus.messages import NodeTelemetry
from appliance.http_server import http_runner
from appliance.node.supervised import EXPERT_STATES, ExpertLoad, ExpertState

_log = logging.getLogger(__name__)


class WatchedExpert(Protocol):
    """An expert as the daemon sees it."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def state(self) -> ExpertState:
        """What it is doing."""

    @property
    def restarts(self) -> int:
        """How often it was started again."""

    @property
    def load(self) -> ExpertLoad:
        """Its requests and tokens."""


class NodeCollector(Collector):
    """The experts and the machine as metrics, read when they are asked for."""

    def __init__(
        self,
        *,
        experts: Sequence[WatchedExpert],
        telemetry: Callable[[], NodeTelemetry | None],
        registry: CollectorRegistry,
    ) -> None:
        """Take the experts, what returns the last telemetry, and the registry to join."""
        self._experts = experts
        self._telemetry = telemetry
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        yield from self._of_experts()
        yield from self._of_machine()

    def _of_experts(self) -> Iterator[Metric]:
        state = GaugeMetricFamily(
            "rouse_node_expert_state",
            "1 for the state that an expert is in: starting, ready, failed or stopped.",
            labels=["expert", "state"],
        )
        restarts = CounterMetricFamily(
            "rouse_node_expert_restarts", "How often an expert was started again.", labels=["expert"]
        )
        active = GaugeMetricFamily(
            "rouse_node_expert_active_requests", "Requests that an expert answers.", labels=["expert"]
        )
        queued = GaugeMetricFamily(
            "rouse_node_expert_queued_requests", "Requests that wait in an expert.", labels=["expert"]
        )
        tokens = CounterMetricFamily(
            "rouse_node_expert_generated_tokens",
            "Tokens that an expert generated since the daemon started.",
            labels=["expert"],
        )
        for expert in self._experts:
            for name in EXPERT_STATES:
                state.add_metric([expert.name, name], float(expert.state == name))
            restarts.add_metric([expert.name], expert.restarts)
            active.add_metric([expert.name], expert.load.active)
            queued.add_metric([expert.name], expert.load.queued)
            tokens.add_metric([expert.name], expert.load.generated_tokens)
        yield from (state, restarts, active, queued, tokens)

    def _of_machine(self) -> Iterator[Metric]:
        told = self._telemetry()
        values = (
            ("rouse_node_cpu_ratio", "Share of the processor in use, 0 to 1.", told.cpu if told else None),
            ("rouse_node_memory_ratio", "Share of the memory in use, 0 to 1.", told.memory if told else None),
            ("rouse_node_disk_ratio", "Share of the models' file system in use, 0 to 1.", told.disk if told else None),
            ("rouse_node_uptime_seconds", "Time since the machine was started.", told.uptime if told else None),
            (
                "rouse_node_temperature_celsius",
                "The hottest sensor of the processor.",
                told.temperature if told else None,
            ),
        )
        for name, text, value in values:
            family = GaugeMetricFamily(name, text)
            if value is not None:
                family.add_metric([], value)
            yield family


class StatusServer:
    """The handlers."""

    def __init__(
        self,
        *,
        node: str,
        experts: Sequence[WatchedExpert],
        registry: CollectorRegistry,
        key: str | None,
        first_boot: Callable[[], Mapping[str, Any]] | None = None,
        more: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        """Take what to tell; with a key, /metrics is told only to who sends it.

        `first_boot` tells how the first-boot file was read, and `more` what else /health says; neither holds a secret.
        """
        self._first_boot = first_boot
        self._more = more
        self._node = node
        self._experts = experts
        self._registry = registry
        self._authorization = f"Bearer {key}".encode() if key is not None else None

    def application(self) -> web.Application:
        """Build the aiohttp application."""
        app = web.Application()
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._metrics)
        if self._first_boot is not None:
            app.router.add_get("/first-boot", self._tell_first_boot)
        return app

    async def _health(self, _request: web.Request) -> web.Response:
        states = {expert.name: expert.state for expert in self._experts}
        failed = "failed" in states.values()
        body = {"status": "degraded" if failed else "ok", "node": self._node, "experts": states}
        return web.json_response({**body, **self._more()})

    async def _tell_first_boot(self, _request: web.Request) -> web.Response:
        return web.json_response(self._first_boot() if self._first_boot is not None else {})

    async def _metrics(self, request: web.Request) -> web.Response:
        if self._authorization is not None:
            given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
            if not hmac.compare_digest(given, self._authorization):
                raise web.HTTPUnauthorized(text="Send the key as 'Authorization: Bearer <key>'.\n")
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@asynccontextmanager
async def served(application: web.Application, *, host: str, port: int) -> AsyncIterator[None]:
    """Serve an application while the context lasts.

    An address that is taken is an error in the log and no more: a node without metrics still has its experts.
    """
    runner = http_runner(application)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            _log.error("no /metrics: can't listen on %s:%d: %s. Set node.status_port.", host, port, error.strerror)
        else:
            bound = runner.addresses[0][1]
            _log.info("/health and /metrics at http://%s:%d", f"[{host}]" if ":" in host else host, bound)
        yield
    finally:
        await runner.cleanup()
