"""Experts on machines that sleep: who is asked meanwhile, and how one is woken for a request.

What wakes a machine is passed in; the gateway only says which.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from appliance.gateway.errors import AsleepError
from appliance.gateway.metrics import GatewayMetrics
from appliance.gateway.origin import Candidate, Roused
from appliance.gateway.registry import ExpertRegistry
from appliance.gateway.request import Request
from appliance.routing.candidates import AUTO, Endpoint


class Woken(Protocol):
    """How a wish for a node ended."""

    @property
    def ok(self) -> bool:
        """Whether it is awake."""

    @property
    def detail(self) -> str:
        """One sentence for people: why it is not."""


class Waker(Protocol):
    """Wakes nodes; many wishes for one are one wake."""

    def can_wake(self, node: str) -> bool:
        """Whether it may be woken at all."""

    async def wake(self, node: str, reason: str) -> Woken:
        """Return when a node is awake, or will not be; to be cancelled does not end the wake."""

    def wake_soon(self, node: str, reason: str) -> bool:
        """Begin to wake a node, and return whether it is on its way."""


class Bedroom:
    """The experts that sleep. Without a waker there are none: they are as good as gone."""

    def __init__(
        self, *, registry: ExpertRegistry, waker: Waker | None, metrics: GatewayMetrics, patience: float
    ) -> None:
        """Take the parts, and how many seconds an expert may take to be ready when its node is awake."""
        self._registry = registry
        self._waker = waker
        self._metrics = metrics
        self._patience = patience

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Those that could be woken."""
        waker = self._waker
        if waker is None:
            return ()
        return tuple(endpoint for endpoint in self._registry.asleep if waker.can_wake(endpoint.node))

    def undisturbed(self, wanted: Sequence[str]) -> tuple[str, ...]:
        """Why experts that sleep are not woken, one sentence each."""
        can = {endpoint.key for endpoint in self.endpoints}
        return tuple(
            f"{one.name} is on {one.node}, which sleeps and is not to be woken."
            for one in self._registry.asleep
            if one.key not in can and (AUTO in wanted or one.name in wanted)
        )

    def arrange(self, candidates: Sequence[Candidate], request: Request) -> "Arrangement":
        """Put candidates, best first, into the order in which they are asked.

        The first choice is woken where it sleeps: now, if the request waits for it, and else while others answer.
        Those that are awake come before others that sleep, and somebody else's server, which nobody asked for,
        comes last: what is said in the house leaves it only if nobody at home can answer.
        """
        first = candidates[0]
        if not any(one.endpoint.asleep for one in candidates):
            return Arrangement(tuple(candidates))
        awake = [one for one in candidates if not one.endpoint.asleep and not _uninvited(one)]
        rest = [one for one in candidates if one.endpoint.asleep] + [one for one in candidates if _uninvited(one)]
        if self._waker is None or not first.endpoint.asleep:
            return Arrangement((*awake, *rest))
        waits = request.names_an_expert or request.policy.while_asleep == "wait"
        if waits or not awake:
            return Arrangement((first, *awake, *(one for one in rest if one is not first)))
        name, node = first.endpoint.name, first.endpoint.node
        if not self._waker.wake_soon(node, f"a request for {name}, which others answer meanwhile"):
            return Arrangement((*awake, *rest))
        self._metrics.wakes.labels(name, "meanwhile").inc()
        stand_in = replace(awake[0], reason=f"It answers while {name} wakes up on {node}. {awake[0].reason}")
        return Arrangement((stand_in, *awake[1:], *rest), waking=node)

    async def rouse(self, endpoint: Endpoint) -> tuple[Endpoint, Roused]:
        """Wake an endpoint's node, wait until it is ready, and return it as it is then.

        Raises:
            AsleepError: it is not ready in time.
        """
        started = time.perf_counter()
        try:
            with self._metrics.sleeping.track_inprogress():
                ready = await self._woken(endpoint)
        except AsleepError:
            self._metrics.wakes.labels(endpoint.name, "failed").inc()
            raise
        seconds = time.perf_counter() - started
        self._metrics.wakes.labels(endpoint.name, "woken").inc()
        self._metrics.wake_seconds.labels(endpoint.name).observe(seconds)
        return ready, Roused(endpoint.node, seconds)

    async def _woken(self, endpoint: Endpoint) -> Endpoint:
        if self._waker is None:
            raise AsleepError("its machine sleeps")
        woken = await self._waker.wake(endpoint.node, f"a request for {endpoint.name}")
        if not woken.ok:
            raise AsleepError(woken.detail)
        return await self._until_ready(endpoint)

    async def _until_ready(self, endpoint: Endpoint) -> Endpoint:
        key = endpoint.key
        try:
            async with asyncio.timeout(self._patience):
                while (ready := self._registry.endpoint(key)) is None:
                    if not self._registry.is_coming(key) and all(key != one.key for one in self._registry.asleep):
                        raise AsleepError(f"{endpoint.node} is awake, but {endpoint.name} does not start there")
                    await self._registry.change()
        except TimeoutError:
            raise AsleepError(
                f"{endpoint.node} is awake, but {endpoint.name} is not ready after {self._patience:g} s"
            ) from None
        return ready


@dataclass(frozen=True, slots=True)
class Arrangement:
    """Who is asked, in order."""

    candidates: tuple[Candidate, ...]
    waking: str | None = None
    """The node of the first choice, which is being woken meanwhile."""


def _uninvited(candidate: Candidate) -> bool:
    """Whether it is somebody else's server that nothing ranks."""
    return candidate.endpoint.external and not candidate.ranked
