"""Puts the machine to sleep when its policy says so, and loses nothing by any sleep, whoever asked for it.

The way down: experts save their prompt prefixes, `going_to_sleep` on the bus, a last look at the experts, logind is
asked. logind announces every sleep to all (PrepareForSleep) and waits for our delay lock: in that time the experts save
what has come since, `asleep` and the goodbye go out, and the lock is given back. The way up: PrepareForSleep(false).
Where that is not seen, because D-Bus was lost meanwhile, the clocks tell that the machine has slept.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from appliance.bus.client import Bus
from appliance.bus.topics import POWER_COMMAND
from appliance.node.clock import Clock, SleepDetector
from appliance.node.dbus.errors import NotAllowedError, SystemBusError
from appliance.node.dbus.logind import Logind, Method
from appliance.node.sleeping.activity import ActivityWatch, Busyness
from appliance.node.sleeping.alarm import AlarmClock
from appliance.node.sleeping.goodbye import Goodbye
from appliance.node.sleeping.judge import Judge
from appliance.node.sleeping.locks import Locks
from appliance.node.sleeping.metrics import SleepMetrics
from appliance.node.sleeping.policy import Decide, SleepOptions
from appliance.node.sleeping.report import PowerReport
from appliance.node.sleeping.surroundings import not_allowed
from appliance.node.sleeping.wishes import Wishes

_log = logging.getLogger(__name__)

DEFAULT_LONGEST_DELAY = 5.0
"""logind.conf(5), InhibitDelayMaxSec=, where logind can't be asked."""
MOST_DELAY_SECONDS = 30.0
"""More than that is not used, however much logind gives."""
PATIENCE_SECONDS = 60.0
"""A machine that runs for so long after it should have slept is awake."""


@dataclass(frozen=True, slots=True)
class SleepParts:
    """What the controller is made of."""

    bus: Bus
    logind: Logind
    activity: ActivityWatch
    goodbye: Goodbye
    alarm: AlarmClock
    clock: Clock
    metrics: SleepMetrics


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
        resumed: Callable[[], Awaitable[None]],
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
        self._parts = parts
        self._options = options
        self._resumed = resumed
        self._locks = Locks(parts.logind)
        self._report = PowerReport(
            node=node, bus=parts.bus, clock=parts.clock, metrics=parts.metrics, method=options.method
        )
        self._wishes = Wishes(parts.clock)
        self._judge = Judge(
            bus=parts.bus,
            logind=parts.logind,
            locks=self._locks,
            wishes=self._wishes,
            alarm=parts.alarm,
            clock=parts.clock,
            decide=decide,
            options=options,
            nothing_wakes=nothing_wakes,
            update_running=update_running,
        )
        self._detector = SleepDetector(parts.clock)
        self._longest_delay = DEFAULT_LONGEST_DELAY
        self._signals: asyncio.Queue[tuple[Literal["sleep", "shutdown"], bool]] = asyncio.Queue()
        self._announced = asyncio.Event()
        """Set when logind has announced the sleep that was asked for."""
        parts.logind.on_sleep(lambda starts: self._signals.put_nowait(("sleep", starts)))
        parts.logind.on_shutdown(lambda starts: self._signals.put_nowait(("shutdown", starts)))
        parts.logind.when_there(self._meet_logind)
        parts.bus.subscribe(POWER_COMMAND, self._wishes.take, node=node)

    async def run(self) -> None:
        """Watch, decide and sleep, until cancelled."""
        await self._report.say("the node has just started")
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._follow_signals(), name="logind's signals")
                group.create_task(self._watch(), name="idle watch")
        finally:
            self._locks.release_all()

    # ---- logind

    async def _meet_logind(self) -> None:
        """After each connection to logind: what it gave before is worth nothing any more."""
        if self._report.is_now("awake"):
            await self._locks.take("delay", anew=True)
            if self._locks.blocking:
                await self._locks.take("block", anew=True)
        self._longest_delay = min(await self._parts.logind.longest_delay(), MOST_DELAY_SECONDS)
        if not await self._parts.logind.about_to("sleep") and self._report.is_now("asleep"):
            await self._wake_up("it is awake, as logind says; D-Bus was lost meanwhile")

    async def _follow_signals(self) -> None:
        while True:
            what, starts = await self._signals.get()
            if starts:
                await self._go_down("off" if what == "shutdown" else "asleep")
            elif not self._report.is_now("awake"):
                asleep = self._report.is_now("asleep")
                await self._wake_up("it was woken" if asleep else "it was not put down after all")

    async def _go_down(self, last: Literal["asleep", "off"]) -> None:
        """Use the time that the delay lock gives, then give the lock back."""
        started = self._parts.clock.monotonic()
        ours = self._report.is_now("going_to_sleep")
        reason = self._report.reason if ours else "someone put the machine down"
        self._announced.set()
        self._report.enter("going_to_sleep")
        going = self._report.message(reason)
        try:
            if self._report.next_wake is not None:
                self._parts.alarm.set(self._report.next_wake - self._parts.clock.wall())
            self._report.enter(last)
            await self._parts.goodbye.say(going, self._report.message(reason), longest_delay=self._longest_delay)
            self._parts.metrics.sleeps.labels("suspend" if last == "asleep" else "poweroff").inc()
        finally:
            self._parts.metrics.preparation.observe(self._parts.clock.monotonic() - started)
            self._locks.release_all()

    async def _wake_up(self, reason: str) -> None:
        _log.info("awake: %s", reason)
        self._report.enter("awake")
        self._detector.slept()
        self._parts.activity.touch()
        self._wishes.forget_sleep()
        self._parts.alarm.clear()
        await self._resumed()
        await self._report.say(reason)
        self._parts.bus.come_back()
        await self._locks.take("delay", anew=True)

    # ---- watch and decide

    async def _watch(self) -> None:
        clock = self._parts.clock
        next_decision = clock.monotonic() + self._options.decide_interval
        while True:
            if self._report.is_now("awake"):
                busy = await self._look()
                if clock.monotonic() >= next_decision and self._report.is_now("awake"):
                    next_decision = clock.monotonic() + self._options.decide_interval
                    await self._consider(busy)
            else:
                await self._notice_being_awake()
            await asyncio.sleep(self._options.busy_interval)

    async def _look(self) -> Busyness:
        """See whether the experts are in use, and hold the locks that go with it."""
        if slept := self._detector.slept():
            await self._wake_up(f"it had slept for {slept:.0f} s, unannounced")
        busy = await self._parts.activity.look()
        self._report.idle = busy.idle
        self._parts.metrics.idle.set(busy.idle)
        if self._report.is_now("awake"):
            await self._locks.take("delay")
            if busy.generating:
                await self._locks.take("block")
            else:
                self._locks.release("block")
        return busy

    async def _notice_being_awake(self) -> None:
        """End a sleep whose end was not announced, or that never came."""
        if self._detector.slept():
            # Give logind's own announcement, which says it better, a moment.
            await asyncio.sleep(self._options.busy_interval)
            if not self._report.is_now("awake"):
                await self._wake_up("it has slept, and nobody announced the end")
        elif self._report.duration >= PATIENCE_SECONDS:
            try:
                about_to = await self._parts.logind.about_to("shutdown" if self._report.is_now("off") else "sleep")
            except SystemBusError:
                about_to = False
            if not about_to and not self._report.is_now("awake"):
                await self._wake_up("it was to sleep, and did not")

    async def _consider(self, busy: Busyness) -> None:
        judgement = await self._judge.judge(busy, awake_for=self._report.duration)
        self._report.next_wake = judgement.wake_at
        if not self._report.is_now("awake"):
            return
        if judgement.method is None:
            await self._report.say_news(judgement.reason, judgement.blockers)
        else:
            await self._put_down(judgement.method, judgement.reason)

    async def _put_down(self, method: Method, reason: str) -> None:
        """Ask logind for it, after everything that takes longer than a delay lock lasts."""
        _log.info("going to %s: %s", method, reason)
        self._announced.clear()
        await self._parts.goodbye.save()
        if not self._report.is_now("awake"):
            return  # someone else was quicker
        self._report.enter("going_to_sleep")
        await self._report.say(reason)
        busy = await self._parts.activity.look()
        if not self._report.is_now("going_to_sleep"):
            return
        if busy.generating:
            self._report.enter("awake")
            await self._report.say("a request came when it was about to sleep")
            return
        self._locks.release("block")
        await self._locks.take("delay", anew=True)  # logind may have been restarted a moment ago
        try:
            await self._parts.logind.put_down(method)
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._announced.wait()
        except NotAllowedError:
            await self._be_refused(not_allowed(method))
        except SystemBusError as error:
            await self._be_refused(f"logind did not do it: {error}")
        except TimeoutError:
            await self._be_refused("logind was asked to, and did not do it")

    async def _be_refused(self, sentence: str) -> None:
        if not self._report.is_now("going_to_sleep"):
            return  # it has been announced after all: D-Bus was lost between the two
        _log.warning("%s", sentence)
        self._parts.metrics.refused.inc()
        self._judge.note_refusal(sentence)
        self._report.enter("awake")
        await self._report.say("it was about to sleep and could not", (sentence,))
