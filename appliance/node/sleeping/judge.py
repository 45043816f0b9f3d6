"""Whether the machine sleeps now: the policy's decision, wishes, and what speaks against it whatever these say."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from appliance.bus.client import Bus
from appliance.node.clock import Clock
from appliance.node.dbus.errors import SystemBusError
from appliance.node.dbus.logind import Logind, Method
from appliance.node.sleeping.activity import Busyness
from appliance.node.sleeping.alarm import AlarmClock
from appliance.node.sleeping.locks import Locks
from appliance.node.sleeping.policy import Decide, Decision, Observation, SleepOptions
from appliance.node.sleeping.surroundings import Surroundings, look_around
from appliance.node.sleeping.wishes import SleepWish, Wishes

_log = logging.getLogger(__name__)

RETRY_SECONDS = 300.0
"""Pause after logind has refused."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What to do."""

    method: Method | None
    """How to put the machine down; None is not at all."""
    reason: str
    blockers: tuple[str, ...]
    wake_at: float | None
    """When its own clock should wake it; Unix time."""


class Judge:
    """Looks at everything and says what to do."""

    def __init__(
        self,
        *,
        bus: Bus,
        logind: Logind,
        locks: Locks,
        wishes: Wishes,
        alarm: AlarmClock,
        clock: Clock,
        decide: Decide,
        options: SleepOptions,
        nothing_wakes: Callable[[], str | None],
        update_running: Callable[[], bool],
    ) -> None:
        """Take what is looked at.

        Args:
            bus: the node's client; without a broker nobody would know that the node sleeps.
            logind: tells who is logged in, who forbids sleep, and whether the machine can.
            locks: without a delay lock, nothing could be saved and nobody told.
            wishes: what was asked for on the bus.
            alarm: may wake the machine.
            clock: the clocks.
            decide: the policy.
            options: what the settings allow.
            nothing_wakes: says why no magic packet would wake the machine, or None.
            update_running: whether an update is being installed.
        """
        self._bus = bus
        self._logind = logind
        self._locks = locks
        self._wishes = wishes
        self._alarm = alarm
        self._clock = clock
        self._decide = decide
        self._options = options
        self._nothing_wakes = nothing_wakes
        self._update_running = update_running
        self._refusal: tuple[str, float] | None = None

    def note_refusal(self, sentence: str) -> None:
        """It was tried, and refused: that is said, and not tried again for a while, unless it is asked for."""
        self._refusal = (sentence, self._clock.monotonic() + RETRY_SECONDS)
        self._wishes.forget_sleep()

    async def judge(self, busy: Busyness, *, awake_for: float) -> Judgement:
        """Say what to do; `busy` is what the experts are doing, `awake_for` how many seconds it has been awake."""
        looked_for = self._options.method
        surroundings, obstacles = await self._look_around(looked_for)
        decision = self._decide(self._observation(surroundings, busy, awake_for), self._clock.wall())
        wish = self._granted_wish()
        if wish is None:
            method = None if decision.action == "stay" or self._options.method is None else decision.action
            if method is not None and method != looked_for:
                # The policy prefers the other way at this hour; what was looked at does not hold for it.
                looked_for = method
                surroundings, obstacles = await self._look_around(method)
                decision = self._decide(self._observation(surroundings, busy, awake_for), self._clock.wall())
                method = method if decision.action == method else None
            reason, blockers = decision.reason, decision.blockers
        else:
            method = self._options.method
            reason = f"it was asked to sleep: {wish.reason}" if wish.reason else "it was asked to sleep"
            blockers = tuple(self._in_the_way(surroundings, busy))
        obstacles += self._obstacles(looked_for, surroundings, decision, busy, wished=wish is not None)
        blockers = tuple(dict.fromkeys((*blockers, *obstacles)))
        return Judgement(None if blockers else method, reason, blockers, decision.wake_at)

    async def _look_around(self, method: Method | None) -> tuple[Surroundings, list[str]]:
        """Return what logind says to a way to sleep, and the obstacle if it can't be asked."""
        if method is None:
            return Surroundings(), []
        try:
            return await look_around(self._logind, method), []
        except SystemBusError as error:
            return Surroundings(), [f"logind can't be asked to put it to sleep: {error}"]

    def _observation(self, surroundings: Surroundings, busy: Busyness, awake_for: float) -> Observation:
        now = self._clock.wall()
        return Observation(
            last_activity=now - busy.idle,
            awake_since=now - awake_for,
            active_requests=busy.active,
            queued_jobs=busy.queued,
            sessions=surroundings.sessions,
            update_running=self._update_running(),
            inhibitors=surroundings.inhibitors,
            stay_awake_until=self._wishes.awake_until,
        )

    def _granted_wish(self) -> SleepWish | None:
        if (wish := self._wishes.sleep) is not None and self._options.method is None:
            _log.warning("it was asked to sleep, but by its settings this machine never does")
            self._wishes.forget_sleep()
            return None
        return wish

    def _obstacles(
        self, method: Method | None, surroundings: Surroundings, decision: Decision, busy: Busyness, *, wished: bool
    ) -> list[str]:
        """Return what speaks against sleep whatever the policy says."""
        if method is None:
            return []
        found = [surroundings.obstacle] if surroundings.obstacle else []
        if not self._locks.delays(method):
            found.append("logind gives no lock that delays it: nothing would be saved, and nobody told")
        if not self._bus.connected:
            found.append("the broker is not reachable: nobody would know that it sleeps, and wake it")
        if busy.lent_to:
            found.append("an expert on another machine has layers of its model here")
        alarm = decision.wake_at is not None and self._alarm.usable
        if not self._options.without_wake and not alarm and (sentence := self._nothing_wakes()):
            found.append(sentence)
        if self._refusal is not None:
            sentence, until = self._refusal
            if wished or self._clock.monotonic() >= until:
                self._refusal = None
            else:
                found.append(sentence)
        return found

    def _in_the_way(self, surroundings: Surroundings, busy: Busyness) -> list[str]:
        """Return what a wish for sleep has to wait for."""
        found = list(surroundings.inhibitors)
        if busy.generating:
            found.append("it answers requests")
        if self._update_running():
            found.append("an update is being installed")
        return found
