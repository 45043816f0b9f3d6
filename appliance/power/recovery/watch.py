"""Notices that a node is missing, has it recovered within limits, and says so when nothing helped.

A node is missing when it is gone without goodbye for longer than `recovery.grace`, or was called and did not come.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from appliance.bus.client import Bus
from appliance.bus.topics import REPAIR_NOTICE
from appliance.bus.waking_messages import RecoveryStep, RepairNotice
from appliance.power.metrics import PowerMetrics
from appliance.power.nodes import KnownNode, NodeBook
from appliance.power.recovery.ladder import Ladder
from appliance.power.recovery.ledger import DAY_SECONDS, Begun, Case, Ledger, Problem
from appliance.security.audit import AuditError, AuditLog
from appliance.settings.waking import RecoverySettings

_log = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
SETTLING_SECONDS = 20.0
"""After a connection to the broker: nobody is missed before all have had time to return. A shorter grace counts."""
FEWEST_FOR_A_COMMON_CAUSE = 2
"""So many nodes, and all of those that should be there, are not lost by chance at the same time."""
AT_ONCE_SECONDS = 600.0

type Probe = Callable[[KnownNode], Awaitable[str | None]]
"""Returns where a node answers although it is not on the bus, or None."""
type Updating = Callable[[str], bool]


class Objections:
    """Says why a node's power must not be switched."""

    def __init__(
        self,
        *,
        book: NodeBook,
        ledger: Ledger,
        settings: RecoverySettings,
        probe: Probe,
        updating: Updating,
        connected: Callable[[], bool],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._connected = connected
        self._book = book
        self._ledger = ledger
        self._settings = settings
        self._probe = probe
        self._updating = updating
        self._wall = wall

    async def __call__(self, node: KnownNode) -> str | None:
        """Return a sentence, or None."""
        reason = self._plain_reason(node)
        if reason is None and (where := await self._probe(node)) is not None:
            reason = f"it is on: it answers at {where}"
        return reason

    def _plain_reason(self, node: KnownNode) -> str | None:
        if not self._connected():
            return "the hub has no broker, and would not hear it"
        if node.online:
            return "it is on the bus"
        return self._reason_to_wait(node) or self._limit(node)

    def _reason_to_wait(self, node: KnownNode) -> str | None:
        if self._book.is_kept_off(node):
            return "somebody wants it to stay off"
        if self._updating(node.name):
            return "an update is being installed on it"
        if self._seems_to_have_a_common_cause():
            return "every node is missing at once, which looks like the network or the mains"
        return None

    def _limit(self, node: KnownNode) -> str | None:
        case = self._ledger.of(node.name)
        asked = case.begun is not None and case.begun.asked
        switched = self._ledger.switched_lately(node.name, self._wall())
        if switched >= self._settings.cycles_per_day and not asked:
            return f"its power was switched {switched} times in 24 hours, which is the limit"
        return None

    def _seems_to_have_a_common_cause(self) -> bool:
        expected = [one for one in self._book.all if one.announcement is not None and (one.online or one.is_lost)]
        if len(expected) < FEWEST_FOR_A_COMMON_CAUSE or not all(one.is_lost for one in expected):
            return False
        since = [self._book.missing_for(one) for one in expected]
        return max(since) - min(since) < AT_ONCE_SECONDS


class RecoveryWatch:
    """Begins and ends climbs: an async context manager that owns them."""

    def __init__(
        self,
        *,
        bus: Bus,
        book: NodeBook,
        ledger: Ledger,
        ladder: Ladder,
        settings: RecoverySettings,
        probe: Probe,
        audit: AuditLog,
        metrics: PowerMetrics,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._bus = bus
        self._book = book
        self._ledger = ledger
        self._ladder = ladder
        self._settings = settings
        self._probe = probe
        self._audit = audit
        self._metrics = metrics
        self._wall = wall
        self._settling = min(SETTLING_SECONDS, settings.grace)
        self._climbs: dict[str, asyncio.Task[None]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        climbs = list(self._climbs.values())
        for climb in climbs:
            climb.cancel()
        await asyncio.gather(*climbs, return_exceptions=True)

    def did_not_wake(self, node: str, detail: str) -> None:
        """Note that a node was called and did not come; its recovery begins, if it may."""
        if self._settings.enabled and self._may_begin(node):
            step = RecoveryStep(rung="magic_packet", outcome="no_return", evidence=detail[:500], at=self._wall())
            self._begin(node, Begun(problem="did_not_wake", since=self._wall(), steps=(step,)))

    def recover(self, node: str, reason: str) -> None:
        """Begin at once, because a person asked for it; limits count for less, a node that is there is let alone."""
        known = self._book.get(node)
        if known is None or known.online or node in self._climbs:
            _log.warning("%s is not recovered: it is %s", node, _why_not(known))
            return
        _log.info("recovering %s: %s", node, reason)
        problem: Problem = "did_not_wake" if known.sleeps else "lost"
        self._begin(node, Begun(problem=problem, since=self._wall(), asked=True))

    async def run(self) -> None:
        """Look, until cancelled."""
        await self._take_over()
        settled_at: float | None = None
        while True:
            now = time.monotonic()
            if not self._bus.connected:
                settled_at = None
            elif settled_at is None:
                settled_at = now + self._settling
            await self._clear()
            if self._settings.enabled and settled_at is not None and now >= settled_at:
                self._look()
            await self._pause()

    async def _pause(self) -> None:
        waiting = asyncio.create_task(self._book.change(), name="a node's next message")
        await asyncio.wait([waiting], timeout=LOOK_SECONDS)
        waiting.cancel()

    async def _take_over(self) -> None:
        """Go on with what an earlier process began."""
        for name, case in self._ledger.cases.items():
            if case.notice is not None:
                await self._bus.keep(REPAIR_NOTICE, case.notice, node=name)
            if case.begun is not None:
                _log.warning("going on with the recovery of %s", name)
                self._begin(name, case.begun, pause=self._settling)
        self._count()

    async def _clear(self) -> None:
        """End what is no longer wanted: the node is there, asleep by its own word, or does not belong here any more."""
        for name, case in self._ledger.cases.items():
            node = self._book.get(name)
            gone = node is None and name not in self._climbs and self._bus.connected and case.notice is not None
            back = node is not None and node.is_awake
            if gone or (back and name not in self._climbs and (case.notice is not None or case.failures)):
                await self._write(name, Case(switched=case.switched))
                self._count()
                if case.notice is not None:
                    await self._bus.withdraw(REPAIR_NOTICE, node=name)
                    await self._record(name, "returned" if back else "forgotten", "the repair notice is withdrawn")

    def _look(self) -> None:
        for node in self._book.all:
            if (
                node.is_lost
                and node.announcement is not None
                and self._book.missing_for(node) >= self._settings.grace
                and self._may_begin(node.name)
            ):
                since = self._wall() - self._book.missing_for(node)
                self._begin(node.name, Begun(problem="lost", since=max(0.0, since)))

    def _may_begin(self, name: str) -> bool:
        node = self._book.get(name)
        return (
            node is not None
            and not node.online
            and self._bus.connected
            and name not in self._climbs
            and not self._book.is_kept_off(node)
            and self._wall() >= self._ledger.of(name).not_before
        )

    def _begin(self, name: str, begun: Begun, *, pause: float = 0.0) -> None:
        climb = asyncio.create_task(self._climb(name, begun, pause), name=f"recovery of {name}")
        self._climbs[name] = climb
        climb.add_done_callback(lambda done: self._end(name, done))

    def _end(self, name: str, climb: asyncio.Task[None]) -> None:
        del self._climbs[name]
        if not climb.cancelled() and (error := climb.exception()) is not None:
            _log.error("the recovery of %s ended by an error of its own", name, exc_info=error)

    async def _climb(self, name: str, begun: Begun, pause: float) -> None:
        await asyncio.sleep(pause)
        node = self._book.get(name)
        where = await self._probe(node) if node is not None and not node.online and not begun.steps else None
        if where is not None:
            unreachable = begun.model_copy(update={"problem": "unreachable"})
            await self._give_up(name, unreachable, f"{name} is on and answers at {where}, but is not on the bus.", ())
            return
        await self._write(name, self._ledger.of(name).model_copy(update={"begun": begun}))
        steps = await self._ladder.climb(name, begun)
        node = self._book.get(name)
        if node is None or node.online:
            await self._write(name, self._ledger.of(name).model_copy(update={"begun": None, "failures": 0}))
            await self._record(name, "returned", _told(steps))
        elif self._book.is_kept_off(node):
            await self._write(name, self._ledger.of(name).model_copy(update={"begun": None}))
        else:
            what = "does not wake" if begun.problem == "did_not_wake" else "is gone without goodbye"
            await self._give_up(name, begun, f"{name} {what}, and could not be brought back.", steps)

    async def _give_up(self, name: str, begun: Begun, summary: str, steps: tuple[RecoveryStep, ...]) -> None:
        case = self._ledger.of(name)
        failures = case.failures + 1
        pause = min(self._settings.again_after * 2 ** min(failures - 1, 10), DAY_SECONDS)
        not_before = self._wall() + pause
        advice = "Look whether it has power and its network cable."
        if begun.problem == "unreachable":
            advice = "Look at its log."
        elif begun.problem == "lost":
            advice += f" If it is gone for good, run rouse power forget {name}."
        notice = RepairNotice(
            node=name,
            problem=begun.problem,
            summary=f"{summary} {advice}",
            since=begun.since,
            steps=steps[-20:],
            next_attempt=None if begun.problem == "did_not_wake" else not_before,
        )
        update = {"begun": None, "failures": failures, "not_before": not_before, "notice": notice}
        await self._write(name, case.model_copy(update=update))
        self._count()
        await self._bus.keep(REPAIR_NOTICE, notice, node=name)
        await self._record(name, "failed", f"{summary} {_told(steps)}")

    async def _write(self, name: str, case: Case) -> None:
        try:
            await asyncio.to_thread(self._ledger.write, name, case, self._wall())
        except OSError as error:
            _log.error("what is known of the recovery of %s can't be written: %s", name, error)

    async def _record(self, name: str, outcome: str, detail: str) -> None:
        try:
            await asyncio.to_thread(self._audit.record, "hub", "recovery", name, outcome, detail)
        except AuditError as error:
            _log.error("%s", error)

    def _count(self) -> None:
        self._metrics.missing.set(sum(case.notice is not None for case in self._ledger.cases.values()))


def _told(steps: tuple[RecoveryStep, ...]) -> str:
    return "; ".join(f"{step.rung}: {step.outcome}" for step in steps)


def _why_not(node: KnownNode | None) -> str:
    if node is None:
        return "not known"
    return "on the bus" if node.online else "being recovered already"
