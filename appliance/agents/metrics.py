"""What the agents count, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Histogram

DURATION_BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)


class AgentMetrics:
    """Counters of all agents of a hub, in the registry of its process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "rouse_agent_requests",
            "Chat requests by how they ended: finished, or the code of the failure.",
            ["agent", "outcome"],
            registry=registry,
        )
        self.duration = Histogram(
            "rouse_agent_request_seconds",
            "Time from a chat request to the end of its reply.",
            ["agent"],
            buckets=DURATION_BUCKETS,
            registry=registry,
        )
