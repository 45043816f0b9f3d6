"""What the node says of its power, and the state that this is about."""

from appliance.bus.client import Bus
from appliance.bus.power_messages import NodePower, PowerState
from appliance.bus.topics import NODE_POWER
from appliance.node.clock import Clock
from appliance.node.dbus.logind import Method
from appliance.node.sleeping.metrics import SleepMetrics

IDLE_REPORT_SECONDS = 60.0
"""How old the idle time may be that the bus shows."""
MOST_TEXT = 500
MOST_BLOCKERS = 50


class PowerReport:
    """The state, since when, and what was last said of it."""

    def __init__(self, *, node: str, bus: Bus, clock: Clock, metrics: SleepMetrics, method: Method | None) -> None:
        """Take where to say it, and how the node sleeps."""
        self._node = node
        self._bus = bus
        self._clock = clock
        self._metrics = metrics
        self._method = method
        self._state: PowerState = "awake"
        self._since = clock.wall()
        self._entered = clock.monotonic()
        self._said: tuple[NodePower, float] | None = None
        self.idle = 0.0
        """Seconds without use."""
        self.next_wake: float | None = None
        """When the node's own clock is to wake it; Unix time."""

    def is_now(self, state: PowerState) -> bool:
        """Whether that is the state: any await may have changed it."""
        return self._state == state

    @property
    def duration(self) -> float:
        """Seconds in this state, without the machine's sleep."""
        return self._clock.monotonic() - self._entered

    @property
    def reason(self) -> str:
        """What was last said."""
        return self._said[0].reason if self._said is not None else ""

    def enter(self, state: PowerState) -> None:
        """Change the state; nothing is said yet."""
        if state != self._state:
            self._state = state
            self._since = self._clock.wall()
            self._entered = self._clock.monotonic()
            self._metrics.enter(state)

    def message(self, reason: str, blockers: tuple[str, ...] = ()) -> NodePower:
        """Return what there is to say now."""
        return NodePower(
            state=self._state,
            since=self._since,
            reason=reason[:MOST_TEXT],
            idle_seconds=round(self.idle, 1),
            blockers=tuple(blocker[:MOST_TEXT] for blocker in blockers[:MOST_BLOCKERS]),
            method=self._method,
            next_wake=self.next_wake,
        )

    async def say(self, reason: str, blockers: tuple[str, ...] = ()) -> None:
        """Publish it."""
        message = self.message(reason, blockers)
        self._said = message, self._clock.monotonic()
        await self._bus.keep(NODE_POWER, message, node=self._node)

    async def say_news(self, reason: str, blockers: tuple[str, ...]) -> None:
        """Publish it if it is not what was said last, and now and then for the idle time."""
        message = self.message(reason, blockers)
        if self._said is not None:
            last, when = self._said
            same = message.model_copy(update={"idle_seconds": last.idle_seconds}) == last
            if same and self._clock.monotonic() - when < IDLE_REPORT_SECONDS:
                return
        await self.say(reason, blockers)
