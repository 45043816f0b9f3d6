"""Puts the machine to sleep when its policy says so, and loses nothing by any sleep, whoever asked for it.

The way down: experts save their prompt prefixes, `going_to_sleep` on the bus, a last look at the experts, logind is
asked. logind announces every sleep to all (PrepareForSleep) and waits for our delay lock: in that time the experts save
what has come since, `asleep` and the goodbye go out, and the lock is given back. The way up: PrepareForSleep(false).
Where that is not seen, because D-Bus was lost meanwhile, the clocks tell that the machine has slept.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from appliance.bus.client import Bus
from appliance.bus.power_messages import NodePower, PowerCommand, PowerState
from appliance.bus.topics import NODE_POWER, POWER_COMMAND
from appliance.node.clock import Clock, SleepDetector
from appliance.node.dbus.errors import NotAllowedError, SystemBusError
from appliance.node.dbus.logind import Logind, Method
from appliance.node.sleeping.activity import ActivityWatch, Busyness
from appliance.node.sleeping.alarm import AlarmClock
from appliance.node.sleeping.goodbye import Goodbye
from appliance.node.sleeping.locks import Locks
from appliance.node.sleeping.metrics import SleepMetrics
from appliance.node.sleeping.policy import Decide, Decision, Observation, SleepOptions
from appliance.node.sleeping.surroundings import Surroundings, look_around, not_allowed

_log = logging.getLogger(__name__)

DEFAULT_LONGEST_DELAY = 5.0
"""logind.conf(5), InhibitDelayMaxSec=, where logind can't be asked."""
MOST_DELAY_SECONDS = 30.0
"""More than that is not used, however much logind gives."""
PATIENCE_SECONDS = 60.0
"""A machine that runs for so long after it should have slept is awake."""
RETRY_SECONDS = 300.0
"""Pause after logind has refused."""
COMMAND_SECONDS = 600.0
"""How long a `sleep` without a time is wanted, if something is in its way at first."""
FOREVER = 1e11
IDLE_REPORT_SECONDS = 60.0
"""How old the idle time may be that the bus shows."""
REMEMBERED_COMMANDS = 64


@dataclass(frozen=True, slots=True)
class SleepParts:
    """What the controller is made of."""

    bus: Bus
    logind: Logind
    activity: ActivityWatch
    goodbye: Goodbye
    locks: Locks
    alarm: AlarmClock
    clock: Clock
    metrics: SleepMetrics


@dataclass(frozen=True, slots=True)
class _Wish:
    """A `sleep` that was asked for on the bus."""

    reason: str
    until: float


class SleepController:
    """One node's sleep; `run` it until it is cancelled."""

    def __init__(
        self,
        *,
        node: str,
        parts: SleepParts,
        decide: Decide,
        options: SleepOptions,
        nothing_wakes: Callable[[], str | None],
        update_running: Callable[[], bool] = lambda: False,
        resumed: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Take the parts, before the bus and D-Bus are entered.

        Args:
            node: its name.
            parts: what the controller is made of.
            decide: the policy.
            options: what the settings allow.
            nothing_wakes: says why no magic packet would wake the machine, or None.
            update_running: whether an update is being installed.
            resumed: is awaited after a sleep, before the bus connects, to refresh what is kept there.
        """
        self._node = node
        self._parts = parts
        self._decide = decide
        self._options = options
        self._nothing_wakes = nothing_wakes
        self._update_running = update_running
        self._resumed = resumed
        self._state: PowerState = "awake"
        self._since = parts.clock.wall()
        self._state_entered = parts.clock.monotonic()
        self._stay_awake_until: float | None = None
        self._wish: _Wish | None = None
        self._commands: deque[str] = deque(maxlen=REMEMBERED_COMMANDS)
        self._refusal: tuple[str, float] | None = None
        self._busy = Busyness()
        self._wake_at: float | None = None
        self._longest_delay = DEFAULT_LONGEST_DELAY
        self._detector = SleepDetector(parts.clock)
        self._published: tuple[NodePower, float] | None = None
        self._signals: asyncio.Queue[tuple[Literal["sleep", "shutdown"], bool]] = asyncio.Queue()
        self._down = asyncio.Event()
        """Set when logind has announced the sleep that was asked for."""
        parts.logind.on_sleep(lambda starts: self._signals.put_nowait(("sleep", starts)))
        parts.logind.on_shutdown(lambda starts: self._signals.put_nowait(("shutdown", starts)))
        parts.logind.when_there(self._meet_logind)
        parts.bus.subscribe(POWER_COMMAND, self._obey, node=node)

    async def run(self) -> None:
        """Watch, decide and sleep, until cancelled."""
        await self._publish(self._power("the node has just started"))
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._follow_signals(), name="logind's signals")
                group.create_task(self._watch(), name="idle watch")
        finally:
            self._parts.locks.release_all()

    # ---- from outside

    async def _meet_logind(self) -> None:
        """After each connection to logind: what it gave before is worth nothing any more."""
        if self._is("awake"):
            await self._parts.locks.take("delay", anew=True)
            if self._parts.locks.blocking:
                await self._parts.locks.take("block", anew=True)
        self._longest_delay = min(await self._parts.logind.longest_delay(), MOST_DELAY_SECONDS)
        if self._is("asleep") and not await self._parts.logind.about_to("sleep") and self._is("asleep"):
            await self._wake_up("it is awake, as logind says; D-Bus was lost meanwhile")

    async def _obey(self, command: PowerCommand | None, _levels: Mapping[str, str]) -> None:
        if command is None or command.id in self._commands:
            return
        self._commands.append(command.id)
        now = self._parts.clock.wall()
        match command.action:
            case "stay_awake":
                self._wish = None
                self._stay_awake_until = FOREVER if command.until is None else command.until
                _log.info("asked to stay awake: %s", command.reason or "no reason given")
            case "sleep":
                self._stay_awake_until = None
                self._refusal = None
                until = now + COMMAND_SECONDS if command.until is None else command.until
                self._wish = _Wish(command.reason, until)
                _log.info("asked to sleep: %s", command.reason or "no reason given")
            case "wake":
                pass  # the hub's business: this machine is awake

    # ---- signals of logind

    async def _follow_signals(self) -> None:
        while True:
            what, starts = await self._signals.get()
            if starts:
                await self._go_down("off" if what == "shutdown" else "asleep")
            elif not self._is("awake"):
                await self._wake_up("it was woken" if self._is("asleep") else "it was not put down after all")

    async def _go_down(self, last: Literal["asleep", "off"]) -> None:
        """Use the time that the delay lock gives, then give the lock back."""
        started = self._parts.clock.monotonic()
        reason = self._power().reason if self._is("going_to_sleep") else "someone put the machine down"
        method: Method = "suspend" if last == "asleep" else "poweroff"
        self._down.set()
        self._enter("going_to_sleep")
        going = self._power(reason)
        try:
            if self._wake_at is not None:
                self._parts.alarm.set(self._wake_at - self._parts.clock.wall())
            self._enter(last)
            await self._parts.goodbye.say(going, self._power(reason), longest_delay=self._longest_delay)
            self._parts.metrics.sleeps.labels(method).inc()
        finally:
            self._parts.metrics.preparation.observe(self._parts.clock.monotonic() - started)
            self._parts.locks.release_all()

    async def _wake_up(self, reason: str) -> None:
        _log.info("awake: %s", reason)
        self._detector.slept()
        self._parts.activity.touch()
        self._wish = None
        self._enter("awake")
        self._parts.alarm.clear()
        if self._resumed is not None:
            await self._resumed()
        await self._publish(self._power(reason))
        self._parts.bus.come_back()
        await self._parts.locks.take("delay", anew=True)

    # ---- watch and decide

    async def _watch(self) -> None:
        next_decision = self._parts.clock.monotonic() + self._options.decide_interval
        while True:
            if self._is("awake"):
                await self._look()
                if self._parts.clock.monotonic() >= next_decision and self._is("awake"):
                    next_decision = self._parts.clock.monotonic() + self._options.decide_interval
                    await self._consider()
            else:
                await self._notice_being_awake()
            await asyncio.sleep(self._options.busy_interval)

    async def _look(self) -> None:
        """See whether the experts are in use, and hold the locks that go with it."""
        if slept := self._detector.slept():
            await self._wake_up(f"it had slept for {slept:.0f} s, unannounced")
        self._busy = await self._parts.activity.look()
        self._parts.metrics.idle.set(self._busy.idle)
        if not self._is("awake"):
            return
        await self._parts.locks.take("delay")
        if self._busy.generating:
            await self._parts.locks.take("block")
        else:
            self._parts.locks.release("block")

    async def _notice_being_awake(self) -> None:
        """End a sleep whose end was not announced, or that never came."""
        if self._detector.slept() and not self._is("off"):
            # Give logind's own announcement, which says it better, a moment.
            await asyncio.sleep(self._options.busy_interval)
            if not self._is("awake"):
                await self._wake_up("it has slept, and nobody announced the end")
        elif self._parts.clock.monotonic() - self._state_entered >= PATIENCE_SECONDS:
            try:
                about_to = await self._parts.logind.about_to("shutdown" if self._is("off") else "sleep")
            except SystemBusError:
                about_to = False
            if not about_to and not self._is("awake"):
                await self._wake_up("it was to sleep, and did not")

    async def _consider(self) -> None:
        method = self._options.method
        surroundings, obstacles = Surroundings(), list[str]()
        if method is not None:
            try:
                surroundings = await look_around(self._parts.logind, method)
            except SystemBusError as error:
                obstacles.append(f"logind can't be asked to put it to sleep: {error}")
        decision = self._decide(self._observation(surroundings), self._parts.clock.wall())
        self._wake_at = decision.wake_at
        obstacles += self._obstacles(surroundings, decision)
        blockers = tuple(dict.fromkeys((*decision.blockers, *obstacles)))
        wish = self._valid_wish()
        if wish is not None:
            blockers = tuple(dict.fromkeys((*self._in_the_way(surroundings), *obstacles)))
            reason = f"it was asked to sleep: {wish.reason}" if wish.reason else "it was asked to sleep"
        else:
            reason = decision.reason
            method = None if decision.action == "stay" else decision.action
        if method is None or blockers:
            await self._stay(reason, blockers)
        else:
            await self._put_down(method, reason)

    def _observation(self, surroundings: Surroundings) -> Observation:
        return Observation(
            last_activity=self._parts.clock.wall() - self._busy.idle,
            active_requests=self._busy.active,
            queued_jobs=self._busy.queued,
            sessions=surroundings.sessions,
            update_running=self._update_running(),
            inhibitors=surroundings.inhibitors,
            stay_awake_until=self._awake_until(),
        )

    def _awake_until(self) -> float | None:
        if self._stay_awake_until is not None and self._parts.clock.wall() >= self._stay_awake_until:
            self._stay_awake_until = None
        return self._stay_awake_until

    def _obstacles(self, surroundings: Surroundings, decision: Decision) -> list[str]:
        """Return what speaks against sleep whatever the policy says."""
        if self._options.method is None:
            return []
        found = [surroundings.obstacle] if surroundings.obstacle else []
        if not self._parts.bus.connected:
            found.append("the broker is not reachable: nobody would know that it sleeps, and wake it")
        if self._busy.lent_to:
            found.append("an expert on another machine has layers of its model here")
        alarm = decision.wake_at is not None and self._parts.alarm.usable
        if not self._options.without_wake and not alarm and (sentence := self._nothing_wakes()):
            found.append(sentence)
        if self._refusal is not None:
            sentence, until = self._refusal
            if self._parts.clock.monotonic() < until:
                found.append(sentence)
            else:
                self._refusal = None
        return found

    def _in_the_way(self, surroundings: Surroundings) -> list[str]:
        """Return what a wish for sleep has to wait for."""
        found = list(surroundings.inhibitors)
        if self._busy.generating:
            found.append("it answers requests")
        if self._update_running():
            found.append("an update is being installed")
        return found

    def _valid_wish(self) -> _Wish | None:
        if self._wish is not None and self._parts.clock.wall() >= self._wish.until:
            _log.info("it is no longer wanted that this machine sleeps; something was in the way all the time")
            self._wish = None
        if self._wish is not None and self._options.method is None:
            _log.warning("it was asked to sleep, but by its settings this machine never does")
            self._wish = None
        return self._wish

    async def _stay(self, reason: str, blockers: tuple[str, ...]) -> None:
        """Tell why the machine is awake, when that has changed, and now and then how idle it is."""
        power = self._power(reason, blockers)
        if self._published is not None:
            last, when = self._published
            said = (last.state, last.reason, last.blockers, last.next_wake)
            recent = self._parts.clock.monotonic() - when < IDLE_REPORT_SECONDS
            if recent and said == (power.state, power.reason, power.blockers, power.next_wake):
                return
        await self._publish(power)

    async def _put_down(self, method: Method, reason: str) -> None:
        """Ask logind for it, after everything that takes longer than a delay lock lasts."""
        _log.info("going to %s: %s", method, reason)
        self._down.clear()
        await self._parts.goodbye.save()
        if not self._is("awake"):
            return  # someone else was quicker
        self._enter("going_to_sleep")
        await self._publish(self._power(reason))
        self._busy = await self._parts.activity.look()
        if not self._is("going_to_sleep"):
            return
        if self._busy.generating:
            self._enter("awake")
            await self._publish(self._power("a request came when it was about to sleep"))
            return
        self._parts.locks.release("block")
        await self._parts.locks.take("delay", anew=True)  # logind may have been restarted a moment ago
        try:
            await self._parts.logind.put_down(method)
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._down.wait()
        except NotAllowedError:
            await self._be_refused(not_allowed(method))
        except SystemBusError as error:
            await self._be_refused(f"logind did not do it: {error}")
        except TimeoutError:
            await self._be_refused("logind was asked to, and did not do it")

    async def _be_refused(self, sentence: str) -> None:
        if self._down.is_set() or not self._is("going_to_sleep"):
            return  # it has been announced after all: D-Bus was lost between the two
        _log.warning("%s", sentence)
        self._parts.metrics.refused.inc()
        self._wish = None
        self._refusal = (sentence, self._parts.clock.monotonic() + RETRY_SECONDS)
        self._enter("awake")
        await self._publish(self._power("it was about to sleep and could not", (sentence,)))

    # ---- what is said

    def _is(self, state: PowerState) -> bool:
        """Whether that is the state now: any await may have changed it."""
        return self._state == state

    def _enter(self, state: PowerState) -> None:
        if state != self._state:
            self._state = state
            self._since = self._parts.clock.wall()
            self._state_entered = self._parts.clock.monotonic()
            self._parts.metrics.enter(state)

    def _power(self, reason: str | None = None, blockers: tuple[str, ...] = ()) -> NodePower:
        last = self._published[0] if self._published is not None else None
        return NodePower(
            state=self._state,
            since=self._since,
            reason=(reason if reason is not None else last.reason if last is not None else "")[:500],
            idle_seconds=round(self._busy.idle, 1),
            blockers=tuple(blocker[:500] for blocker in blockers)[:50],
            method=self._options.method,
            next_wake=self._wake_at,
        )

    async def _publish(self, power: NodePower) -> None:
        self._published = (power, self._parts.clock.monotonic())
        await self._parts.bus.keep(NODE_POWER, power, node=self._node)
