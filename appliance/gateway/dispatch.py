"""Sends a request to the first expert that answers it.

Before the first token another candidate may be tried; after it never, because the client has already been told
something.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import aiohttp

from appliance.gateway.answer import (
    EVENT_STREAM,
    TAIL_BYTES,
    Usage,
    is_complete,
    longer_tail,
    usage_at_end,
    with_member,
)
from appliance.gateway.balance import Balance
from appliance.gateway.errors import (
    AsleepError,
    AttemptError,
    BusyError,
    ExpertDiedError,
    ExpertFailedError,
    GoneError,
    OverloadedError,
    SilentError,
    StillAsleepError,
)
from appliance.gateway.health import Health
from appliance.gateway.metrics import Gaps, GatewayMetrics
from appliance.gateway.origin import Attempt, Candidate, Origin, Roused
from appliance.gateway.plan import Planner
from appliance.gateway.request import Request
from appliance.gateway.upstream import Begun, Upstream
from appliance.gateway.waking import Bedroom
from appliance.routing.candidates import Endpoint
from appliance.settings.model import GatewaySettings

_log = logging.getLogger(__name__)

MAX_NAMED = 20
"""Experts that an error names."""

type Write = Callable[[bytes], Awaitable[None]]


@dataclass(slots=True)
class Answer:
    """An expert's answer that has begun."""

    origin: Origin
    status: int
    content_type: str
    first: bytes
    """What has arrived: the first event of a stream, all of any other answer; with the `rouse` object."""
    usage: Usage | None
    """Tokens; of a stream, once it has been relayed."""
    response: aiohttp.ClientResponse
    stream_timeout: float
    gaps: Gaps = field(repr=False)
    note_death: Callable[[], None] = field(repr=False)

    @property
    def streamed(self) -> bool:
        """Whether more may come after `first`."""
        return self.content_type == EVENT_STREAM

    async def relay(self, write: Write) -> None:
        """Pass the answer on as it comes.

        Raises:
            ExpertDiedError: what was written is all there is.
        """
        await write(self.first)
        if not self.streamed:
            return
        tail = self.first[-TAIL_BYTES:]
        read, clock, note = self.response.content.readany, time.perf_counter, self.gaps.note
        before = clock()
        try:
            async with asyncio.timeout(self.stream_timeout):
                while True:
                    try:
                        chunk = await read()
                    except (aiohttp.ClientError, OSError) as error:  # a timeout is an OSError too
                        raise self._died(str(error) or type(error).__name__) from error
                    if not chunk:
                        break
                    now = clock()
                    note(now - before)
                    before = now
                    tail = longer_tail(tail, chunk)
                    await write(chunk)
        except TimeoutError:
            raise self._died(f"it took longer than {self.stream_timeout:g} s") from None
        if not is_complete(tail):
            raise self._died("its stream broke off")
        self.usage = usage_at_end(tail)

    def _died(self, reason: str) -> ExpertDiedError:
        endpoint = self.origin.candidate.endpoint
        _log.warning("expert %s on %s died while it answered: %s", endpoint.name, endpoint.node, reason)
        self.note_death()
        return ExpertDiedError(f"The expert {endpoint.name} stopped while it answered. Ask again.")


class Dispatcher:
    """Fails over among the candidates, and hedges."""

    def __init__(
        self,
        *,
        upstream: Upstream,
        planner: Planner,
        bedroom: Bedroom,
        health: Health,
        balance: Balance,
        settings: GatewaySettings,
        metrics: GatewayMetrics,
    ) -> None:
        self._upstream = upstream
        self._planner = planner
        self._bedroom = bedroom
        self._health = health
        self._balance = balance
        self._settings = settings
        self._metrics = metrics

    @asynccontextmanager
    async def open(self, request: Request) -> AsyncIterator[Answer]:
        """Ask the candidates in turn until one begins to answer; wait for one that is about to be ready.

        Leaving ends the expert's work on the answer, if it is not complete.

        Raises:
            UnknownModelError: no expert of that name has ever been announced.
            NoExpertError: none that could answer became ready within the time to a first token, or is on a machine
                that does not wake.
            BusyError: every candidate has too much to do.
            ExpertFailedError: every candidate failed.
        """
        plan = await self._planner.plan(request)
        work = _Work(request, deque(plan.candidates), plan.waking)
        try:
            won = await self._first_answer(work)
        except ExpertFailedError:
            if not await self._planner.is_outdated(work.ended):
                raise
            plan = await self._planner.plan(request)
            work.candidates, work.waking = deque(plan.candidates), plan.waking
            won = await self._first_answer(work)
        begun, endpoint = won.begun, won.origin.candidate.endpoint
        name = endpoint.name
        self._metrics.decisions.labels(router=won.origin.candidate.router, expert=name).inc()
        answer = Answer(
            origin=won.origin,
            status=begun.status,
            content_type=begun.content_type,
            first=begun.first if begun.start is None else with_member(begun.first, begun.start, won.origin.member()),
            usage=begun.usage,
            response=begun.response,
            stream_timeout=self._settings.stream_timeout,
            gaps=self._metrics.gaps(name),
            note_death=lambda: self._health.failure(endpoint.key, won.begun_at, silent=True),
        )
        try:
            yield answer
        finally:
            begun.response.close()
            self._balance.end(endpoint)
        if answer.usage is not None:
            self._metrics.count_tokens(name, answer.usage)

    async def _first_answer(self, work: "_Work") -> "_Won":
        while work.candidates:
            candidate = work.candidates.popleft()
            with contextlib.suppress(AttemptError):
                if candidate.endpoint.asleep:
                    candidate = await self._rouse(candidate, work)
                other = self._hedge(work, candidate)
                if other is None:
                    return work.won(candidate, await self._attempt(candidate, work))
                return await self._race(candidate, other, work)
        if work.asleep and len(work.asleep) == len(work.attempts):
            raise StillAsleepError(
                "No expert can answer: " + " ".join(_sentence(one) for one in work.asleep[:MAX_NAMED])
            )
        if work.busy and len(work.asleep) < len(work.attempts):
            raise BusyError("Every expert has too much to do. Try again in a moment.")
        tried = [f"{one.endpoint.name} on {one.endpoint.node}: {one.outcome}" for one in work.attempts]
        raise ExpertFailedError("No expert answered: " + "; ".join(tried[:MAX_NAMED]))

    async def _rouse(self, candidate: Candidate, work: "_Work") -> Candidate:
        """Wake a candidate's machine, and return the candidate as it is then.

        Raises:
            AttemptError: it does not wake. That has been noted.
        """
        endpoint = candidate.endpoint
        started = time.perf_counter()
        try:
            ready, work.woken = await self._bedroom.rouse(endpoint)
        except AsleepError as error:
            work.asleep.append(str(error))
            work.attempts.append(Attempt(endpoint, str(error), time.perf_counter() - started))
            self._metrics.failovers.labels(expert=endpoint.name).inc()
            _log.warning("expert %s on %s was not woken: %s", endpoint.name, endpoint.node, error)
            raise
        return replace(candidate, endpoint=ready)

    async def _attempt(self, candidate: Candidate, work: "_Work") -> "_Success":
        """Ask one candidate. Whoever gets the answer ends its place in the balance.

        Raises:
            AttemptError: it does not answer. That has been noted.
        """
        endpoint = candidate.endpoint
        key = endpoint.key
        started = time.perf_counter()
        self._balance.begin(endpoint, work.request.blocks)
        begun_at = self._health.begin(key)
        try:
            begun = await self._upstream.ask(endpoint, work.request)
        except AttemptError as error:
            self._balance.end(endpoint)
            if isinstance(error, OverloadedError):
                self._health.cancel(key)
            else:
                work.busy = False
                if isinstance(error, GoneError):
                    work.ended.append(endpoint)
                self._health.failure(key, begun_at, silent=isinstance(error, SilentError))
            work.attempts.append(Attempt(endpoint, str(error), time.perf_counter() - started))
            self._metrics.failovers.labels(expert=endpoint.name).inc()
            _log.warning("expert %s on %s did not answer: %s", endpoint.name, endpoint.node, error)
            raise
        except BaseException:
            self._balance.end(endpoint)
            self._health.cancel(key)
            raise
        self._health.answer(key)
        return _Success(begun, begun_at, time.perf_counter() - started)

    def _hedge(self, work: "_Work", candidate: Candidate) -> Candidate | None:
        """Return whom to ask as well if the candidate is slow, or None if nobody.

        Not where tools are offered: the fastest expert is not the best at controlling a house. And who asks for
        an expert by name gets that expert, at most on another node.
        """
        request = work.request
        if self._settings.hedge_after is None or len(request.prompt) > self._settings.hedge_max_bytes:
            return None
        if "tools" in request.needs:
            return None
        for other in work.candidates:
            if other.endpoint.asleep:
                continue
            same = other.endpoint.name == candidate.endpoint.name
            if (same or not request.names_an_expert) and self._health.state(other.endpoint.key) == "closed":
                return other
        return None

    async def _race(self, first: Candidate, second: Candidate, work: "_Work") -> "_Won":
        """Ask the first candidate, and the second too if that takes long; return the answer that comes first.

        Raises:
            AttemptError: none of those that were asked answers.
        """
        running = {asyncio.create_task(self._attempt(first, work), name="first of a race"): first}
        try:
            await asyncio.wait(running, timeout=self._settings.hedge_after)
            hedged = not any(task.done() for task in running)
            if hedged:
                work.candidates.remove(second)
                running[asyncio.create_task(self._attempt(second, work), name="second of a race")] = second
            while True:
                done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                task = done.pop()
                candidate = running.pop(task)
                if task.exception() is None or not running:
                    break
            if hedged:
                self._metrics.hedges.labels(winner="second" if candidate is second else "first").inc()
            success = task.result()
            work.attempts += [
                Attempt(loser.endpoint, "another was faster", success.seconds) for loser in running.values()
            ]
            return work.won(candidate, success)
        finally:
            for task, loser in running.items():
                task.cancel()
                task.add_done_callback(partial(self._discard, loser))

    def _discard(self, loser: Candidate, task: "asyncio.Task[_Success]") -> None:
        """Close the answer of a loser that was not cancelled in time."""
        if not task.cancelled() and task.exception() is None:
            task.result().begun.response.close()
            self._balance.end(loser.endpoint)


@dataclass(frozen=True, slots=True)
class _Success:
    """An attempt that led to an answer."""

    begun: Begun
    begun_at: float
    """By the clock of `Health`."""
    seconds: float


@dataclass(frozen=True, slots=True)
class _Won:
    """The answer that the client gets."""

    begun: Begun
    begun_at: float
    origin: Origin


@dataclass(slots=True)
class _Work:
    """A request on its way through the candidates."""

    request: Request
    candidates: deque[Candidate]
    waking: str | None = None
    """The node that is being woken meanwhile."""
    woken: Roused | None = None
    """The node that was woken for this request."""
    asleep: list[str] = field(default_factory=list)
    """Why each that did not wake did not."""
    attempts: list[Attempt] = field(default_factory=list)
    ended: list[Endpoint] = field(default_factory=list)
    """Those that nothing listens for any more."""
    busy: bool = True
    """Whether every candidate that was asked has too much to do."""

    def won(self, candidate: Candidate, success: _Success) -> _Won:
        attempts = (*self.attempts, Attempt(candidate.endpoint, "answered", success.seconds))
        woken = self.woken if self.woken is not None and self.woken.node == candidate.endpoint.node else None
        return _Won(success.begun, success.begun_at, Origin(candidate, attempts, woken, self.waking))


def _sentence(text: str) -> str:
    """Return what went wrong as a sentence."""
    text = text[:1].upper() + text[1:]
    return text if text.endswith(".") else f"{text}."
