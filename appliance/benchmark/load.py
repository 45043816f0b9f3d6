"""Lets a number of clients ask, each again as soon as it has its answer."""

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import aiohttp

from appliance.benchmark.client import UNREACHABLE, Outcome, Target, ask, ask_into
from appliance.benchmark.errors import AllFailedError, UnreachableError
from appliance.benchmark.prompts import prompts
from appliance.benchmark.report import Level

REACH_SECONDS = 10.0
PAUSE_AFTER_ERROR = 0.1
"""Seconds a client waits after a failed request, so that a refusing server is not flooded."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured."""

    concurrency: tuple[int, ...] = (1, 4, 8)
    prompt_tokens: tuple[int, ...] = (32,)
    answer_tokens: int = 64
    duration: float | None = 15.0
    """Seconds for each level; with None the number of requests ends it."""
    requests: int | None = None
    """Requests of each level, at most."""
    warm_up: int = 2
    """Requests before each prompt length is measured, which do not count."""
    seed: int = 1
    """Of the prompts. A server that has seen the same ones answers from its cache: take another one for each run."""

    @property
    def levels(self) -> list[tuple[int, int]]:
        """Concurrency and prompt length of each level, in their order."""
        return [(clients, length) for length in self.prompt_tokens for clients in self.concurrency]


@dataclass(slots=True)
class LoadTest:
    """Runs a plan; what was measured stays in `levels` when it is cancelled."""

    http: aiohttp.ClientSession
    target: Target
    plan: Plan
    on_level: Callable[[int, int], None] = lambda _clients, _length: None
    """Called when a level begins."""
    on_answer: Callable[[Outcome], None] = lambda _outcome: None
    """Called for each request that ends."""
    levels: list[Level] = field(default_factory=list)

    async def run(self) -> None:
        """Measure every level.

        Raises:
            UnreachableError: nothing listens there.
            AllFailedError: none of the requests of a warm-up succeeded.
        """
        await check_reachable(self.http, self.target)
        warm = -1
        for number, (clients, length) in enumerate(self.plan.levels):
            source = prompts(length, seed=self.plan.seed * 1000 + number)
            self.on_level(clients, length)
            if length != warm:
                warm = length
                await self._warm_up(source)
            await self._level(clients, length, source)

    async def _warm_up(self, source: Iterator[str]) -> None:
        outcomes = [
            await ask(self.http, self.target, _messages(next(source)), self.plan.answer_tokens)
            for _ in range(self.plan.warm_up)
        ]
        if outcomes and all(one.error for one in outcomes):
            raise AllFailedError(f"every request failed: {outcomes[-1].error}: {outcomes[-1].detail}")

    async def _level(self, clients: int, length: int, source: Iterator[str]) -> None:
        began, start = time.time(), time.perf_counter()
        outcomes: list[Outcome] = []
        left = itertools.repeat(None) if self.plan.requests is None else itertools.repeat(None, self.plan.requests)
        ended = None
        try:
            async with asyncio.timeout(self.plan.duration), asyncio.TaskGroup() as group:
                for _ in range(clients):
                    group.create_task(self._client(outcomes, left, source))
        except TimeoutError:
            ended = start + (self.plan.duration or 0)
        finally:
            if outcomes:
                window = start, ended or max(one.ended for one in outcomes)
                level = Level.of(outcomes, concurrency=clients, prompt_tokens=length, began=began, window=window)
                self.levels.append(level)

    async def _client(self, outcomes: list[Outcome], left: Iterator[None], source: Iterator[str]) -> None:
        for _ in left:
            outcome = Outcome(time.perf_counter())
            outcomes.append(outcome)
            await ask_into(outcome, self.http, self.target, _messages(next(source)), self.plan.answer_tokens)
            self.on_answer(outcome)
            if outcome.error:
                await asyncio.sleep(PAUSE_AFTER_ERROR)


async def check_reachable(http: aiohttp.ClientSession, target: Target) -> None:
    """Make sure that something answers.

    Raises:
        UnreachableError: nothing does.
    """
    try:
        timeout = aiohttp.ClientTimeout(total=REACH_SECONDS)
        async with http.get(target.base + "/v1/models", timeout=timeout, allow_redirects=False):
            return
    except (aiohttp.ClientError, OSError, ValueError) as error:  # a timeout is an OSError too
        reason = str(error) or f"no answer within {REACH_SECONDS:g} s"
        raise UnreachableError(f"{target.url} is {UNREACHABLE}: {reason}") from error


def check_some_succeeded(levels: list[Level]) -> None:
    """Make sure that there is something to report.

    Raises:
        AllFailedError: no request succeeded.
    """
    if any(level.completed for level in levels):
        return
    errors = [
        (count, kind, level.error_details.get(kind, "")) for level in levels for kind, count in level.errors.items()
    ]
    if errors:
        _, kind, detail = max(errors)
        raise AllFailedError(f"every request failed: {kind}: {detail}")
    raise AllFailedError("no answer was complete before the measurement ended: measure longer, or ask for fewer tokens")


def _messages(prompt: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}]
