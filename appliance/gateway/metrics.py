"""The gateway's metrics for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

LATENCY_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class GatewayMetrics:
    """Counters of one gateway, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "rouse_gateway_requests",
            "Requests answered.",
            ["path", "status", "expert"],
            registry=self._registry,
        )
        self.failovers = Counter(
            "rouse_gateway_failovers",
            "Candidates that failed before a first token.",
            ["expert"],
            registry=self._registry,
        )
        self.first_byte = Histogram(
            "rouse_gateway_first_byte_seconds",
            "Time from a request to the first byte of its answer.",
            ["expert"],
            buckets=LATENCY_BUCKETS,
            registry=self._registry,
        )
        self.active = Gauge("rouse_gateway_active_requests", "Requests being answered.", registry=self._registry)

    def render(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self._registry)
