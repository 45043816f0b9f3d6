"""What waking and recovery count, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

WAKE_BUCKETS = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0, 240.0)


class PowerMetrics:
    """The hub's side of power, in the registry of its process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.wakes = Counter(
            "rouse_power_wakes",
            "Wakes of nodes; the outcome is woken, failed, refused or needless, and the cause is request, command, "
            "hint, schedule, forecast or recovery.",
            ["node", "cause", "outcome"],
            registry=registry,
        )
        self.joined = Counter(
            "rouse_power_joined_wakes",
            "Wishes for a node that was being woken already.",
            ["node"],
            registry=registry,
        )
        self.packets = Counter(
            "rouse_power_magic_packets", "Magic packets that were sent.", ["node"], registry=registry
        )
        self.wake_seconds = Histogram(
            "rouse_power_wake_seconds",
            "Time from the first magic packet until a node was back on the bus.",
            ["node"],
            buckets=WAKE_BUCKETS,
            registry=registry,
        )
        self.steps = Counter(
            "rouse_power_recovery_steps",
            "Rungs of the recovery ladder that were tried; the outcome is returned, no_return, failed or refused.",
            ["node", "rung", "outcome"],
            registry=registry,
        )
        self.missing = Gauge("rouse_power_missing_nodes", "Nodes that could not be brought back.", registry=registry)
        self.hints = Counter(
            "rouse_power_hints", "Hints on the bus that somebody may ask soon.", ["kind"], registry=registry
        )
