"""What is counted about sleep."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from appliance.bus.power_messages import PowerState

STATES: tuple[PowerState, ...] = ("awake", "going_to_sleep", "asleep", "off")
PREPARATION_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2, 3, 4, 5, 10)


class SleepMetrics:
    """Metrics of one node's sleep, in the registry of its daemon."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._state = Gauge(
            "rouse_node_power_state",
            "1 for the state that the node is in: awake, going_to_sleep, asleep or off.",
            ["state"],
            registry=registry,
        )
        self.idle = Gauge("rouse_node_idle_seconds", "Time awake in which nobody used the experts.", registry=registry)
        self.sleeps = Counter(
            "rouse_node_sleeps", "Times that the machine was put down, by method.", ["method"], registry=registry
        )
        self.refused = Counter(
            "rouse_node_refused_sleeps", "Times that logind did not put the machine down.", registry=registry
        )
        self.preparation = Histogram(
            "rouse_node_sleep_preparation_seconds",
            "From logind's signal to the release of the delay lock.",
            registry=registry,
            buckets=PREPARATION_SECONDS,
        )
        self.enter("awake")

    def enter(self, state: PowerState) -> None:
        """Note a change of state."""
        for known in STATES:
            self._state.labels(known).set(known == state)
