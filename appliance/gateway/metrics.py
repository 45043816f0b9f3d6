"""The gateway's metrics for Prometheus."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from appliance.gateway.answer import Usage
from appliance.gateway.health import STATES, Key, State

LATENCY_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
GAP_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
WAKE_BUCKETS = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0, 240.0)
ROUTER_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5)


class GatewayMetrics:
    """What a gateway counts, in the registry of its process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "rouse_gateway_requests",
            "Requests that were answered; the expert is empty for the gateway's own refusals.",
            ["path", "status", "expert"],
            registry=registry,
        )
        self._tokens = Counter(
            "rouse_gateway_tokens",
            "Tokens as the experts count them; kind is prompt or completion.",
            ["expert", "kind"],
            registry=registry,
        )
        self.first_token = Histogram(
            "rouse_gateway_first_token_seconds",
            "Time from a request to the first token of its answer, or to the whole of one that is not streamed.",
            ["expert"],
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self._gaps: dict[str, Gaps] = {}
        GapCollector(self._gaps, registry)
        self.active = Gauge(
            "rouse_gateway_active_requests", "Requests that are in the gateway, those that wait included.",
            registry=registry,
        )  # fmt: skip
        self.waiting = Gauge(
            "rouse_gateway_waiting_requests", "Requests that wait for an expert to be ready.", registry=registry
        )
        self.sleeping = Gauge(
            "rouse_gateway_rousing_requests", "Requests that wait for a machine to wake up.", registry=registry
        )
        self.wakes = Counter(
            "rouse_gateway_wakes",
            "Requests whose expert was asleep; the outcome is woken, failed, or meanwhile where others answered.",
            ["expert", "outcome"],
            registry=registry,
        )
        self.wake_seconds = Histogram(
            "rouse_gateway_wake_seconds",
            "Time that a request waited until its expert, which was asleep, was ready.",
            ["expert"],
            buckets=WAKE_BUCKETS,
            registry=registry,
        )
        self.refused = Counter(
            "rouse_gateway_refused_requests",
            "Requests beyond gateway.max_requests, which were answered 503.",
            registry=registry,
        )
        self.decisions = Counter(
            "rouse_gateway_routing_decisions",
            "Answers by who chose their expert: request, agent, settings, or a router's name.",
            ["router", "expert"],
            registry=registry,
        )
        self.router_seconds = Histogram(
            "rouse_gateway_router_seconds",
            "Time that the router took for a request.",
            buckets=ROUTER_BUCKETS,
            registry=registry,
        )
        self.skipped = Counter(
            "rouse_gateway_skipped_candidates",
            "Experts that were left out of a request's candidates; the reason is capability or context.",
            ["expert", "reason"],
            registry=registry,
        )
        self.failovers = Counter(
            "rouse_gateway_failovers",
            "Candidates that failed before a first token.",
            ["expert"],
            registry=registry,
        )
        self.hedges = Counter(
            "rouse_gateway_hedges",
            "Requests that a second expert was asked for; the winner is first or second.",
            ["winner"],
            registry=registry,
        )
        self._openings = Counter(
            "rouse_gateway_breaker_openings",
            "How often an expert's circuit breaker opened.",
            ["expert", "node"],
            registry=registry,
        )
        self.probes = Counter(
            "rouse_gateway_probes",
            "Health checks of experts; the outcome is alive or dead.",
            ["expert", "outcome"],
            registry=registry,
        )

    def gaps(self, expert: str) -> "Gaps":
        """Return what notes the time between two pieces of an expert's answer."""
        return self._gaps.setdefault(expert, Gaps())

    def count_tokens(self, expert: str, usage: Usage) -> None:
        """Count what an answer took."""
        self._tokens.labels(expert, "prompt").inc(usage.prompt)
        self._tokens.labels(expert, "completion").inc(usage.completion)

    def count_opening(self, key: Key) -> None:
        """Count a breaker that opened."""
        node, expert = key
        self._openings.labels(expert=expert, node=node).inc()


class Gaps:
    """A histogram for one thread: noting a value takes a sixth of the time that prometheus_client's takes."""

    def __init__(self) -> None:
        self._counts = [0] * (len(GAP_BUCKETS) + 1)
        self._sum = 0.0

    def note(self, seconds: float) -> None:
        """Add a value."""
        self._counts[bisect_left(GAP_BUCKETS, seconds)] += 1
        self._sum += seconds

    def add_to(self, family: HistogramMetricFamily, expert: str) -> None:
        """Add the values to a metric."""
        bounds = (*map(floatToGoString, GAP_BUCKETS), "+Inf")
        family.add_metric([expert], list(zip(bounds, accumulate(self._counts), strict=True)), self._sum)


class GapCollector(Collector):
    """The gaps of all experts."""

    def __init__(self, gaps: Mapping[str, Gaps], registry: CollectorRegistry) -> None:
        self._gaps = gaps
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Yield the metric."""
        family = HistogramMetricFamily(
            "rouse_gateway_inter_chunk_seconds", "Time between two pieces of a streamed answer.", labels=["expert"]
        )
        for expert, gaps in self._gaps.items():
            gaps.add_to(family, expert)
        yield family


@dataclass(frozen=True, slots=True)
class EndpointState:
    """What the gateway knows of an endpoint at this moment."""

    expert: str
    node: str
    state: State
    in_flight: int
    load: float
    """Requests for each slot, those of others on its node included."""


class EndpointStates(Protocol):
    """Tells the states of all endpoints."""

    def __call__(self) -> Iterable[EndpointState]:
        """Return them."""


class EndpointCollector(Collector):
    """The endpoints' states, read when they are asked for: what is gone leaves nothing behind."""

    def __init__(self, states: EndpointStates, registry: CollectorRegistry) -> None:
        self._states = states
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        labels = ["expert", "node"]
        breakers = GaugeMetricFamily(
            "rouse_gateway_breaker_state",
            "1 for the state that an expert's circuit breaker is in: closed, half-open or open.",
            labels=[*labels, "state"],
        )
        in_flight = GaugeMetricFamily(
            "rouse_gateway_endpoint_requests", "Requests of this gateway that an expert has.", labels=labels
        )
        load = GaugeMetricFamily(
            "rouse_gateway_endpoint_load",
            "Requests for each slot of an expert, those of others on its node included.",
            labels=labels,
        )
        for one in self._states():
            for state in STATES:
                breakers.add_metric([one.expert, one.node, state], float(one.state == state))
            in_flight.add_metric([one.expert, one.node], one.in_flight)
            load.add_metric([one.expert, one.node], one.load)
        yield from (breakers, in_flight, load)
