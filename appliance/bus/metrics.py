"""What a client of the bus counts, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge


class BusMetrics:
    """Counters of one client, in the registry of its process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.connected = Gauge("rouse_bus_connected", "1 while the broker is reachable.", registry=registry)
        self.connections = Counter("rouse_bus_connections", "Connections that the broker accepted.", registry=registry)
        self.received = Counter(
            "rouse_bus_received_messages",
            "Messages that were understood, by the name of their topic in docs/asyncapi.yaml.",
            ["topic"],
            registry=registry,
        )
        self.malformed = Counter(
            "rouse_bus_malformed_messages", "Messages that were dropped because they do not fit.", registry=registry
        )
        self.sent = Counter("rouse_bus_sent_messages", "Messages that the broker took.", registry=registry)
        self.unsent = Counter(
            "rouse_bus_unsent_messages", "Messages that the broker did not take in time.", registry=registry
        )
