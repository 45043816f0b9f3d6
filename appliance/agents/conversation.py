"""An agent that answers chat requests from the bus.

It keeps no credentials of Home Assistant: a tool call goes back in the reply, Home Assistant executes
it, and its result comes in the next request.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import aclosing
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from prometheus_client import CollectorRegistry

from appliance.agents.errors import ModelError
from appliance.agents.ledger import Entry, Ledger
from appliance.agents.metrics import AgentMetrics
from appliance.agents.model import Finish, ModelClient
from appliance.agents.prompt import build_prompt
from appliance.agents.reply import ReplyStream
from appliance.bus.client import Bus
from appliance.bus.messages import AgentAnnouncement, ChatCancel, ChatRequest, ReplyFailed
from appliance.bus.topics import AGENT_ANNOUNCEMENT, CHAT_CANCEL, CHAT_REQUEST
from appliance.settings.model import AgentSettings

_log = logging.getLogger(__name__)

MAX_DURATION_SECONDS = 600.0
"""Longest time that is spent on one request, whatever its deadline says."""

_CANCELLED = "cancelled by the client"


class ConversationAgent:
    """Answers the chat requests of one agent: an async context manager that owns its running requests."""

    def __init__(
        self,
        *,
        name: str,
        settings: AgentSettings,
        bus: Bus,
        model: ModelClient,
        metrics: AgentMetrics | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._name = name
        self._settings = settings
        self._bus = bus
        self._model = model
        self._metrics = metrics or AgentMetrics(CollectorRegistry())
        self._clock = clock
        self._ledger = Ledger(clock=clock)
        self._running: set[asyncio.Task[Any]] = set()
        bus.subscribe(CHAT_REQUEST, self._on_request, agent=name)
        bus.subscribe(CHAT_CANCEL, self._on_cancel, agent=name)

    async def __aenter__(self) -> Self:
        announcement = AgentAnnouncement(
            agent=self._name,
            name=self._settings.title,
            description=self._settings.description,
            languages=self._settings.languages,
            control=self._settings.control,
        )
        await self._bus.keep(AGENT_ANNOUNCEMENT, announcement, agent=self._name)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running, timeout=5)

    async def _on_request(self, request: ChatRequest | None, _levels: Mapping[str, str]) -> None:
        if request is None:
            return
        key = request.client, request.id
        seen = self._ledger.find(key)
        if seen is not None:
            if seen.final is not None:
                self._own(ReplyStream(bus=self._bus, request=request).repeat(seen.final), request)
            return
        entry = self._ledger.open(key, min(request.deadline, self._clock() + MAX_DURATION_SECONDS))
        if entry is None:
            refusal = ReplyStream(bus=self._bus, request=request)
            self._own(refusal.fail("overloaded", "Too many requests at once. Try again in a minute."), request)
            return
        entry.task = self._own(self._answer(request, entry), request)

    async def _on_cancel(self, cancel: ChatCancel | None, _levels: Mapping[str, str]) -> None:
        entry = self._ledger.find((cancel.client, cancel.id)) if cancel else None
        if entry is not None and entry.task is not None:
            entry.task.cancel(_CANCELLED)

    def _own(self, work: Coroutine[Any, Any, Any], request: ChatRequest) -> asyncio.Task[Any]:
        task = asyncio.create_task(work, name=f"{self._name} {request.id}")
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def _answer(self, request: ChatRequest, entry: Entry) -> None:
        started = time.perf_counter()
        try:
            await self._work(request, entry)
        finally:
            final = entry.final
            outcome = final.code if isinstance(final, ReplyFailed) else "finished"
            if final is not None:
                self._metrics.requests.labels(self._name, outcome).inc()
                self._metrics.duration.labels(self._name).observe(time.perf_counter() - started)

    async def _work(self, request: ChatRequest, entry: Entry) -> None:
        reply = ReplyStream(bus=self._bus, request=request)
        remaining = min(request.deadline - self._clock(), MAX_DURATION_SECONDS)
        if remaining <= 0:
            late = f"The request came {-remaining:.0f} s after its deadline. Check both clocks."
            entry.final = await reply.fail("expired", late)
            return
        try:
            async with asyncio.timeout(remaining):
                finish = await self._generate(request, reply)
            entry.final = await reply.finish(finish)
        except ModelError as error:
            entry.final = await reply.fail(error.code, str(error))
        except TimeoutError:
            entry.final = await reply.fail("expired", f"The answer took longer than {remaining:.0f} s.")
        except asyncio.CancelledError as error:
            if _CANCELLED in error.args:
                entry.final = await reply.fail("cancelled", "The request was cancelled.")
            else:
                entry.final = await reply.fail("stopping", "The hub is stopping. Ask again in a minute.")
            raise
        except Exception:  # noqa: BLE001 - the client must hear of every failure
            _log.exception("request %s failed", request.id)
            entry.final = await reply.fail("model_error", "The agent failed. Its log says why.")

    async def _generate(self, request: ChatRequest, reply: ReplyStream) -> Finish:
        prompt = build_prompt(request, self._settings)
        async with aclosing(self._model.stream(prompt.body, cache_key=self._name)) as events:
            async for event in events:
                if isinstance(event, Finish):
                    return replace(event, tool_calls=tuple(prompt.restore(call) for call in event.tool_calls))
                await reply.text(event.text)
        raise ModelError("model_error", "The model's answer broke off.")
