"""The endpoints that generate: chat completions and completions."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing

from aiohttp import hdrs, web

from appliance.experts.chat.prompts import ChatPrompts, answer_grammar, with_bos
from appliance.experts.engine.scheduler import Scheduler
from appliance.experts.errors import InvalidRequestError, ModelNotFoundError, UnsupportedError
from appliance.experts.events import Event, Failed, Finished
from appliance.experts.generation import Generation, GenerationRequest
from appliance.experts.http.choices import merged, submit_all, with_choices
from appliance.experts.http.errors import body_of
from appliance.experts.http.requests import MOST_CHOICES, ChatRequest, CompletionRequest, parse
from appliance.experts.http.responses import ChatResponses, CompletionResponses
from appliance.experts.http.wire import sse
from appliance.experts.settings import EngineSettings
from appliance.http_server import read_body

LONG_BODY = 32 * 1024
"""Bodies from this size on are parsed, rendered and tokenised outside of the event loop, and those with a grammar."""

SLOW_WORDS = (b"image_url", b"grammar", b"anyOf", b"oneOf", b"additionalProperties", b"nullable")
"""What may hold an image to be seen, or a grammar to be compiled."""


class Generating:
    """Handlers of the endpoints that generate."""

    def __init__(self, *, name: str, scheduler: Scheduler, settings: EngineSettings) -> None:
        self._name = name
        self._scheduler = scheduler
        self._settings = settings
        self._prompts: ChatPrompts | None = None

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/chat/completions."""
        body = await read_body(request)
        prompts = self._chat_prompts()

        def prepare() -> tuple[ChatRequest, list[GenerationRequest], ChatResponses]:
            parsed = parse(ChatRequest, body)
            parsed.check_supported()
            check_model(parsed.model, self._name)
            self._check_choices(parsed.choices)
            prepared = prompts.prepare(
                parsed, context_tokens=self._scheduler.context_tokens, truncation=self._settings.truncation
            )
            responses = ChatResponses(
                self._name, per_prompt=parsed.choices, logprobs=bool(parsed.logprobs), dropped=prepared.dropped
            )
            return parsed, with_choices(prepared.generation, parsed.choices), responses

        return await self._answer(request, *await aside(prepare, body))

    async def complete(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/completions."""
        body = await read_body(request)
        self._check_generates()
        vocabulary = self._scheduler.info.vocabulary

        def prepare() -> tuple[CompletionRequest, list[GenerationRequest], CompletionResponses]:
            parsed = parse(CompletionRequest, body)
            parsed.check_supported()
            check_model(parsed.model, self._name)
            self._check_choices(parsed.choices * len(parsed.prompt))
            sampling, grammar = parsed.sampling(vocabulary), answer_grammar(parsed, self._scheduler.backend)
            generations = [
                generation
                for prompt in parsed.prompt
                for generation in with_choices(
                    GenerationRequest(
                        prompt=with_bos(self._scheduler.backend, tokens_of(self._scheduler, prompt, "prompt")),
                        max_tokens=parsed.most_tokens or self._scheduler.context_tokens,
                        sampling=sampling,
                        stops=tuple(parsed.stop or ()),
                        grammar=grammar,
                        top_logprobs=parsed.logprobs,
                        name=parsed.prompt_cache_key or "",
                    ),
                    parsed.choices,
                )
            ]
            responses = CompletionResponses(self._name, per_prompt=parsed.choices, logprobs=parsed.logprobs is not None)
            return parsed, generations, responses

        return await self._answer(request, *await aside(prepare, body))

    async def _answer(
        self,
        request: web.Request,
        parsed: ChatRequest | CompletionRequest,
        requests: Sequence[GenerationRequest],
        responses: ChatResponses,
    ) -> web.StreamResponse:
        """Generate; if the client goes away, aiohttp cancels this and the slots are free a step later."""
        generations = submit_all(self._scheduler, requests)
        try:
            if parsed.stream:
                return await self._stream(request, parsed, generations, responses)
            return web.json_response(responses.whole(await _finished(generations)))
        finally:
            for generation in generations:
                generation.cancel()

    async def _stream(
        self,
        request: web.Request,
        parsed: ChatRequest | CompletionRequest,
        generations: Sequence[Generation],
        responses: ChatResponses,
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: "text/event-stream", hdrs.CACHE_CONTROL: "no-cache"})
        running = len(generations)
        async with aclosing(merged(generations)) as news:
            async for index, events in news:
                failure = events[-1] if isinstance(events[-1], Failed) else None
                if failure is not None and not response.prepared:
                    raise failure.error
                if not response.prepared:
                    await response.prepare(request)
                if failure is not None:
                    await response.write(sse(body_of(failure.error)))
                    break
                data = responses.chunks(index, events)
                running -= isinstance(events[-1], Finished)
                if not running:
                    data += responses.ending(include_usage=parsed.includes_usage)
                await response.write(data)
        await response.write_eof()
        return response

    def _chat_prompts(self) -> ChatPrompts:
        self._check_generates()
        if self._prompts is None:
            self._prompts = ChatPrompts(self._scheduler.backend)
        return self._prompts

    def _check_generates(self) -> None:
        if not self._scheduler.info.generates:
            raise UnsupportedError("This model only encodes: it serves embeddings or ranks, and writes no text.")

    def _check_choices(self, count: int) -> None:
        most = min(MOST_CHOICES, self._settings.slots)
        if count > most:
            raise UnsupportedError(
                f"At most {most} answers a request here (min of {MOST_CHOICES} and the expert's slots), "
                f"and this one asks for {count}.",
                param="n",
            )


async def aside[T](work: Callable[[], T], body: bytes) -> T:
    """Prepare a request; outside of the event loop if its body is long or may hold what takes long."""
    if len(body) < LONG_BODY and not any(word in body for word in SLOW_WORDS):
        return work()
    return await asyncio.to_thread(work)


def check_model(asked: str | None, name: str) -> None:
    """Raise ModelNotFoundError if a request is for another model."""
    if asked not in (None, "", "default", name):
        raise ModelNotFoundError(str(asked)[:200], name)


def tokens_of(scheduler: Scheduler, text: str | list[int], param: str) -> list[int]:
    """Return a text's tokens, or the given ones if they exist. Raises InvalidRequestError."""
    if isinstance(text, str):
        return scheduler.backend.tokenize(text, special=True)
    vocabulary = scheduler.info.vocabulary
    if text and (min(text) < 0 or max(text) >= vocabulary):
        raise InvalidRequestError(f"{param}: token ids are 0 to {vocabulary - 1}.", param=param)
    return text


async def _finished(generations: Sequence[Generation]) -> list[tuple[list[Event], Finished]]:
    """Wait for all; the first failure ends the wait."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(generation.finished()) for generation in generations]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]
