"""Wakes nodes. However many ask for one, there is one wake: the others join it.

A wake goes on when those who asked have gone: the next request will want the node as well.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

from appliance.power.errors import NotWokenError
from appliance.power.metrics import PowerMetrics
from appliance.power.nodes import KnownNode, NodeBook
from appliance.power.wake.packets import Caller, Sent
from appliance.security.audit import AuditError, AuditLog
from appliance.settings.waking import WakeSettings

_log = logging.getLogger(__name__)

type Cause = Literal["request", "command", "hint", "schedule", "forecast", "recovery"]

GOING_SECONDS = 60.0
"""How long a node may say that it is going to sleep before it is called all the same."""
MAX_FLIGHTS = 100
"""Wakes at the same time."""


@dataclass(frozen=True, slots=True)
class Woken:
    """How a wish for a node ended."""

    ok: bool
    seconds: float
    """Since this wish was made; 0 for a node that was awake."""
    detail: str
    """One sentence for people: what was done, or why it is not awake."""


@dataclass(slots=True)
class _Flight:
    """A wake that is under way."""

    task: asyncio.Task[Woken]
    packets: int = 0


@dataclass(slots=True)
class _Failure:
    """A wake that came to nothing."""

    at: float
    detail: str


class Waker:
    """Wakes nodes: an async context manager that owns the wakes under way."""

    def __init__(
        self,
        *,
        book: NodeBook,
        caller: Caller,
        settings: WakeSettings,
        audit: AuditLog,
        metrics: PowerMetrics,
        failed: Callable[[str, str], None] = lambda _node, _detail: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the parts, and what is told of each wake that came to nothing."""
        self._book = book
        self._caller = caller
        self._settings = settings
        self._audit = audit
        self._metrics = metrics
        self.failed = failed
        self._clock = clock
        self._flights: dict[str, _Flight] = {}
        self._failures: dict[str, _Failure] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tasks = [flight.task for flight in self._flights.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def can_wake(self, node: str) -> bool:
        """Whether it is worth trying: the node sleeps, or comes already, and nobody wants it to stay off."""
        known = self._book.get(node)
        return self._settings.enabled and known is not None and not self._book.is_kept_off(known)

    def is_waking(self, node: str) -> bool:
        """Whether a wake of the node is under way."""
        return node in self._flights

    async def wake(self, node: str, reason: str, *, cause: Cause = "request", within: float | None = None) -> Woken:
        """Have a node awake; return when it is, or when it is clear that it will not be.

        To be cancelled harms nothing: the wake goes on.

        Args:
            node: its name.
            reason: for the audit log.
            cause: what kind of wish this is. A command also calls a node that has just failed to wake.
            within: seconds that the node has, when this wish is the first; `wake.timeout` when not given.
        """
        started = self._clock()
        flight = self._flights.get(node)
        if flight is not None:
            self._metrics.joined.labels(node).inc()
        else:
            try:
                if self._is_up(node):
                    self._metrics.wakes.labels(node, cause, "needless").inc()
                    return Woken(ok=True, seconds=0.0, detail=f"{node} is awake")
                flight = self._begin(node, reason, cause, within)
            except NotWokenError as error:
                return Woken(ok=False, seconds=0.0, detail=str(error))
        result = await asyncio.shield(flight.task)
        return Woken(ok=result.ok, seconds=self._clock() - started, detail=result.detail)

    def wake_soon(self, node: str, reason: str, *, cause: Cause = "request") -> bool:
        """Have a node woken in the background; return whether it is on its way, or awake."""
        if node in self._flights:
            self._metrics.joined.labels(node).inc()
            return True
        try:
            if not self._is_up(node):
                self._begin(node, reason, cause)
        except NotWokenError as error:
            _log.debug("%s: %s", node, error)
            return False
        return True

    def _is_up(self, node: str) -> bool:
        known = self._book.get(node)
        return known is not None and known.is_awake

    def _begin(self, node: str, reason: str, cause: Cause, within: float | None = None) -> _Flight:
        """Begin a wake.

        Raises:
            NotWokenError: there is no such node, or it must not or can't be woken now.
        """
        try:
            self._check(node, cause)
        except NotWokenError:
            if node in self._failures or self._book.get(node) is not None:  # strangers' names are no labels
                self._metrics.wakes.labels(node, cause, "refused").inc()
            raise
        seconds = self._settings.timeout if within is None else within
        task = asyncio.create_task(self._run(node, reason, cause, seconds), name=f"wake {node}")
        flight = self._flights[node] = _Flight(task)
        task.add_done_callback(lambda done: self._end(node, done))
        return flight

    def _check(self, node: str, cause: Cause) -> None:
        known = self._book.get(node)
        if known is None:
            raise NotWokenError(f"no node {node!r} is known")
        if not self._settings.enabled:
            raise NotWokenError(f"{node} sleeps, and wake.enabled is false")
        if cause not in {"command", "recovery"} and self._book.is_kept_off(known):
            raise NotWokenError(f"somebody wants {node} to stay off; rouse power wake {node} ends that")
        failure = self._failures.get(node)
        if failure is not None and cause not in {"command", "recovery"}:
            left = failure.at + self._settings.again_after - self._clock()
            if left > 0:
                raise NotWokenError(f"{failure.detail} It is tried again in {left:.0f} s.")
        if len(self._flights) >= MAX_FLIGHTS:
            raise NotWokenError(f"{MAX_FLIGHTS} nodes are being woken; ask again in a minute")

    def _end(self, node: str, task: asyncio.Task[Woken]) -> None:
        del self._flights[node]
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("the wake of %s ended by an error of its own", node, exc_info=error)

    async def _run(self, node: str, reason: str, cause: Cause, within: float) -> Woken:
        started = self._clock()
        flight = self._flights[node]
        _log.info("waking %s: %s", node, reason)
        try:
            await self._call_until_it_is_back(node, flight, within)
        except NotWokenError as error:
            result = Woken(ok=False, seconds=self._clock() - started, detail=str(error))
            self._failures[node] = _Failure(self._clock(), result.detail)
            _log.warning("%s was not woken: %s", node, error)
        else:
            self._failures.pop(node, None)
            seconds = self._clock() - started
            result = Woken(ok=True, seconds=seconds, detail=f"{node} was back after {seconds:.1f} s")
            self._metrics.wake_seconds.labels(node).observe(seconds)
            _log.info("%s is awake after %.1f s and %d packets", node, seconds, flight.packets)
        outcome = "woken" if result.ok else "failed"
        self._metrics.wakes.labels(node, cause, outcome).inc()
        await self._record(cause, node, outcome, f"{reason[:300]}: {result.detail} {flight.packets} packets.")
        if not result.ok and cause != "recovery":
            self.failed(node, result.detail)
        return result

    async def _call_until_it_is_back(self, node: str, flight: _Flight, within: float) -> None:
        """Send packets, ever less often.

        Raises:
            NotWokenError: it can't be called, or does not come in time.
        """
        if await self._falls_asleep(node):
            return
        deadline = self._clock() + within
        pause = self._settings.first_retry
        sent = Sent(0, (), ())
        while (left := deadline - self._clock()) > 0:
            sent = await self._call(node, flight)
            if await self._returns(lambda: self._is_up(node), min(pause, left)):
                return
            pause = min(pause * 2, self._settings.last_retry)
        known = self._book.get(node)
        told = f"{flight.packets} magic packets to {', '.join(sent.targets) or 'nowhere'}"
        if known is not None and known.online:
            state = known.power.state if known.power is not None else "unknown"
            raise NotWokenError(f"{node} is on the bus, but after {within:g} s still {state}.")
        raise NotWokenError(f"{node} does not wake: not back within {within:g} s of {told}.")

    async def _falls_asleep(self, node: str) -> bool:
        """Let a node that is going to sleep finish: it would miss the packet. Return whether it stayed awake."""

        def decided() -> bool:
            known = self._book.get(node)
            return known is None or not known.is_going

        await self._returns(decided, GOING_SECONDS)
        return self._is_up(node)

    async def _call(self, node: str, flight: _Flight) -> Sent:
        known = self._book.get(node)
        if known is None:
            raise NotWokenError(f"{node} does not belong to this hub any more")
        sent = await asyncio.to_thread(self._send, known)
        flight.packets += sent.packets
        self._metrics.packets.labels(node).inc(sent.packets)
        if sent.failures:
            _log.warning("no magic packet for %s: %s", node, "; ".join(sent.failures))
        if not sent.packets:
            raise NotWokenError(f"no magic packet for {node} could be sent: {'; '.join(sent.failures)}")
        return sent

    def _send(self, known: KnownNode) -> Sent:
        return self._caller.call_of(known.name, known.macs).send()

    async def _returns(self, condition: Callable[[], bool], seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not condition():
                    await self._book.change()
        return condition()

    async def _record(self, cause: Cause, node: str, outcome: str, detail: str) -> None:
        try:
            await asyncio.to_thread(self._audit.record, cause, "wake", node, outcome, detail)
        except AuditError as error:
            _log.error("%s", error)


type WakeNode = Callable[[str, str], Awaitable[Woken]]
"""Takes a node and a reason."""
