"""Sends a request to the first expert that answers it.

Before the first byte of an answer another candidate may be tried; after it never, because the client
has already been told something.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from appliance.gateway.errors import (
    BusyError,
    ExpertDiedError,
    ExpertFailedError,
    NoExpertError,
    UnknownModelError,
)
from appliance.gateway.metrics import GatewayMetrics
from appliance.gateway.registry import ExpertRegistry
from appliance.routing.candidates import AUTO, Endpoint, rank
from appliance.settings.model import GatewaySettings

_log = logging.getLogger(__name__)

EVENT_STREAM = "text/event-stream"
MAX_NAMED = 20
"""Experts that an error names."""
MAX_QUOTED = 200
"""Characters of a client's text that an error repeats."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An expert's answer that has begun."""

    endpoint: Endpoint
    status: int
    content_type: str
    first: bytes
    """What has arrived: the first bytes of a stream, all of any other answer."""
    response: aiohttp.ClientResponse

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the answer's bytes as they come.

        Raises:
            ExpertDiedError: what was yielded is all there is.
        """
        if self.first:
            yield self.first
        try:
            async for chunk in self.response.content.iter_any():
                yield chunk
        except (aiohttp.ClientError, OSError) as error:  # a timeout is an OSError too
            name = self.endpoint.name
            _log.warning("expert %s on %s died while it answered: %s", name, self.endpoint.node, error)
            raise ExpertDiedError(f"The expert {name} stopped while it answered. Ask again.") from error


class Dispatcher:
    """Chooses among the experts and fails over."""

    def __init__(
        self,
        *,
        http: aiohttp.ClientSession,
        registry: ExpertRegistry,
        settings: GatewaySettings,
        expert_key: str,
        metrics: GatewayMetrics,
    ) -> None:
        self._http = http
        self._registry = registry
        self._settings = settings
        self._headers = {"Authorization": f"Bearer {expert_key}"}
        self._metrics = metrics

    def candidates(self, model: str, needs: frozenset[str]) -> tuple[Endpoint, ...]:
        """Return the endpoints to ask, best first; those that failed a moment ago come last.

        Raises:
            UnknownModelError: no expert of that name has ever been announced.
        """
        names = self._registry.names
        if model != AUTO and model not in names:
            known = ", ".join((AUTO, *names[:MAX_NAMED]))
            raise UnknownModelError(f"the model {model[:MAX_QUOTED]!r} is not known; choose one of: {known}")
        ranked = rank(model, needs, self._registry.ready, self._settings.fallbacks)
        return tuple(sorted(ranked, key=self._registry.is_suspect))

    @asynccontextmanager
    async def open(self, path: str, body: Mapping[str, Any], needs: frozenset[str]) -> AsyncIterator[Answer]:
        """Ask the candidates in turn until one begins to answer; wait for one that is about to be ready.

        Args:
            path: what follows the endpoint's base URL, such as `/chat/completions`.
            body: the request; its `model` is replaced by the chosen expert's name.
            needs: capabilities that the expert must have.

        Raises:
            UnknownModelError: see `candidates`.
            NoExpertError: none that could answer became ready within the time to a first token.
            BusyError: every candidate has too much to do.
            ExpertFailedError: every candidate failed.
        """
        model = str(body.get("model", AUTO))
        failures: list[str] = []
        busy = True
        for endpoint in await self._await_candidates(model, needs):
            try:
                answer = await self._ask(endpoint, path, body)
            except (aiohttp.ClientError, OSError) as error:  # a timeout is an OSError too
                reason = str(error) or type(error).__name__
                busy = False
            else:
                if answer.status == 200 or 400 <= answer.status < 500:
                    self._registry.report_answer(endpoint)
                    try:
                        yield answer
                    finally:
                        answer.response.close()
                    return
                reason = f"HTTP {answer.status}"
                busy = busy and answer.status == 503
                answer.response.close()
            self._registry.report_failure(endpoint)
            self._metrics.failovers.labels(expert=endpoint.name).inc()
            failures.append(f"{endpoint.name} on {endpoint.node}: {reason}")
            _log.warning("expert %s on %s did not answer: %s", endpoint.name, endpoint.node, reason)
        if busy:
            raise BusyError("Every expert has too much to do. Try again in a moment.")
        raise ExpertFailedError("No expert answered: " + "; ".join(failures[:MAX_NAMED]))

    async def _await_candidates(self, model: str, needs: frozenset[str]) -> tuple[Endpoint, ...]:
        """Return the candidates, at least one, as soon as there are any.

        Raises:
            UnknownModelError: see `candidates`.
            NoExpertError: there are none, and none is expected or it takes too long.
        """
        try:
            async with asyncio.timeout(self._settings.first_token_timeout):
                while not (found := self.candidates(model, needs)):
                    if not self._registry.expected(model):
                        raise NoExpertError(self._why_none(model, needs))
                    await self._registry.change()
        except TimeoutError:
            names = ", ".join(self._registry.expected(model)[:MAX_NAMED])
            raise NoExpertError(f"No expert is ready yet: {names} takes too long. Try again in a minute.") from None
        return found

    def _why_none(self, model: str, needs: frozenset[str]) -> str:
        able = f" with {' and '.join(sorted(needs))}" if needs else ""
        reasons = self._registry.troubles(model)[:MAX_NAMED] or ("Check that a node with the expert role is on.",)
        return " ".join((f"No expert{able} is ready.", *reasons))

    async def _ask(self, endpoint: Endpoint, path: str, body: Mapping[str, Any]) -> Answer:
        # A fresh connection each: a kept-alive one may have been closed by the expert unnoticed, and
        # a request that fails on it can't be told from one that the expert dropped.
        streamed = body.get("stream") is True
        longest_gap = self._settings.first_token_timeout if streamed else self._settings.answer_timeout
        timeout = aiohttp.ClientTimeout(total=None, connect=self._settings.connect_timeout, sock_read=longest_gap)
        async with asyncio.timeout(longest_gap):
            response = await self._http.post(
                endpoint.url + path,
                json={**body, "model": endpoint.name},
                headers=self._headers,
                timeout=timeout,
                allow_redirects=False,
            )
            try:
                streaming = response.content_type == EVENT_STREAM
                first = await (response.content.readany() if streaming else response.read())
            except BaseException:
                response.close()
                raise
        return Answer(endpoint, response.status, response.content_type, first, response)
