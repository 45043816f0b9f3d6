"""Decides whom to ask, and in which order, for one request."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from appliance.gateway.balance import Balance
from appliance.gateway.errors import NoExpertError, UnknownModelError
from appliance.gateway.health import Health
from appliance.gateway.metrics import GatewayMetrics
from appliance.gateway.origin import Candidate
from appliance.gateway.registry import ExpertRegistry
from appliance.gateway.request import MAX_QUOTED, Request
from appliance.gateway.waking import Arrangement, Bedroom
from appliance.routing.candidates import AUTO, Endpoint, Tier, names_of, rank, unfit
from appliance.routing.decision import Decision, Router

_log = logging.getLogger(__name__)

MAX_NAMED = 20
"""Experts that an error names."""
ROUTER_SECONDS = 0.5
"""How long a request waits for the router, which answers within milliseconds, before it goes on without."""


class Planner:
    """Puts the endpoints that can answer a request in order."""

    def __init__(
        self,
        *,
        registry: ExpertRegistry,
        health: Health,
        balance: Balance,
        bedroom: Bedroom,
        router: Router | None,
        metrics: GatewayMetrics,
        patience: float,
        wanted: Callable[[str], None] = lambda _expert: None,
    ) -> None:
        """Take the parts, how many seconds to wait for an expert that is loading, and who hears what is wanted."""
        self._registry = registry
        self._health = health
        self._balance = balance
        self._bedroom = bedroom
        self._wanted = wanted
        self._router = router
        self._metrics = metrics
        self._patience = patience
        # One thread: a router need not be safe to use from two, and the event loop must not wait for it.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="router") if router else None

    def close(self) -> None:
        """Let go of the router's thread."""
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def plan(self, request: Request) -> Arrangement:
        """Return the candidates, at least one, the one to ask first in front; it may have to be woken.

        Waits while there are none but some is about to be ready.

        Raises:
            UnknownModelError: no expert of the name in the request has ever been announced.
            NoExpertError: there is none, and none is expected or it takes too long.
        """
        endpoints = self._able(request)
        if not endpoints:
            endpoints = await self._wait(request)
        decision = await self._decide(request, endpoints)
        tiers = rank(endpoints, request.policy, decision)
        candidates = list(self._in_order(tiers, request))
        self._wanted(candidates[0].endpoint.name)
        trusted = sorted(candidates, key=lambda candidate: self._health.is_asked_last(candidate.endpoint.key))
        return self._bedroom.arrange(trusted, request)

    async def is_outdated(self, ended: Sequence[Endpoint]) -> bool:
        """Whether a plan should be made again, because its endpoints have ended and their nodes say so by now."""
        return await self._registry.has_news(ended)

    def _in_order(self, tiers: Iterable[Tier], request: Request) -> Iterable[Candidate]:
        for tier in tiers:
            awake = [endpoint for endpoint in tier.endpoints if not endpoint.asleep]
            asleep = [endpoint for endpoint in tier.endpoints if endpoint.asleep]
            for endpoint in (*self._balance.sort(awake, request.blocks), *asleep):
                yield Candidate(endpoint, tier.reason, tier.router, tier.ranked)

    def _able(self, request: Request) -> Sequence[Endpoint]:
        """Return what can answer. An expert asked for by name is never left out, so that it can explain itself."""
        if request.names_an_expert and request.model not in self._registry.names:
            known = ", ".join((AUTO, *self._registry.names[:MAX_NAMED]))
            raise UnknownModelError(f"the model {request.model[:MAX_QUOTED]!r} is not known; choose one of: {known}")
        able = []
        for endpoint in (*self._registry.ready, *self._bedroom.endpoints):
            why = unfit(endpoint, request.needs, len(request.prompt))
            if why is None or (request.names_an_expert and endpoint.name == request.model):
                able.append(endpoint)
            else:
                self._metrics.skipped.labels(expert=endpoint.name, reason=why).inc()
        return able

    async def _wait(self, request: Request) -> Sequence[Endpoint]:
        wanted = request.policy.experts
        try:
            with self._metrics.waiting.track_inprogress():
                async with asyncio.timeout(self._patience):
                    while not (found := self._able(request)):
                        if not self._registry.expected(wanted):
                            raise NoExpertError(self._why_none(request))
                        await self._registry.change()
        except TimeoutError:
            names = ", ".join(self._registry.expected(wanted)[:MAX_NAMED])
            raise NoExpertError(f"No expert is ready yet: {names} takes too long. Try again in a minute.") from None
        return found

    def _why_none(self, request: Request) -> str:
        able = f" with {' and '.join(sorted(request.needs))}" if request.needs else ""
        reasons = (
            *self._registry.troubles(request.policy.experts)[:MAX_NAMED],
            *self._bedroom.undisturbed(request.policy.experts)[:MAX_NAMED],
        )
        return " ".join(
            (f"No expert{able} is ready.", *(reasons or ("Check that a node with the expert role is on.",)))
        )

    async def _decide(self, request: Request, endpoints: Sequence[Endpoint]) -> Decision | None:
        names = names_of(endpoints)
        if self._router is None or AUTO not in request.policy.experts or len(names) < 2:
            return None
        started = time.perf_counter()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(ROUTER_SECONDS):
                return await loop.run_in_executor(self._thread, self._router.choose, request.text, names)
        except TimeoutError:
            _log.warning("the router took longer than %g s; going on without it", ROUTER_SECONDS)
        except Exception:  # noqa: BLE001 - a router that fails must not fail the request
            _log.exception("the router failed; going on without it")
        finally:
            self._metrics.router_seconds.observe(time.perf_counter() - started)
        return None
