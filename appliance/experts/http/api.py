"""The HTTP API: OpenAI's endpoints, health and metrics."""

import asyncio
import base64
import functools
import hmac
import logging
import struct
from collections.abc import Awaitable, Callable, Sequence

from aiohttp import hdrs, web

from appliance.experts.backend import Backend
from appliance.experts.chat.prompts import ChatPrompts, with_bos
from appliance.experts.engine.scheduler import Scheduler
from appliance.experts.errors import ExpertError, InvalidRequestError, ModelNotFoundError, UnsupportedError
from appliance.experts.events import Failed
from appliance.experts.generation import GenerationRequest
from appliance.experts.http.errors import body_of, plain_response, response_to
from appliance.experts.http.requests import ChatRequest, CompletionRequest, EmbeddingRequest, parse
from appliance.experts.http.responses import ChatResponses, CompletionResponses, Json, sse
from appliance.experts.metrics import ExpertMetrics
from appliance.experts.settings import EngineSettings
from appliance.http_server import read_body

_log = logging.getLogger(__name__)

LONG_BODY = 32 * 1024
"""Bodies from this size on are parsed, rendered and tokenised outside of the event loop."""

MOST_INPUTS = 64
"""Texts in one embedding request."""

type Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ExpertApi:
    """Routes of one expert."""

    def __init__(
        self,
        *,
        name: str,
        api_key: str,
        scheduler: Scheduler,
        settings: EngineSettings,
        metrics: ExpertMetrics,
    ) -> None:
        """Take what the handlers need; `api_key` must not be empty."""
        if not api_key:
            raise ValueError("An expert needs an API key.")
        self._name = name
        self._key = api_key.encode()
        self._scheduler = scheduler
        self._settings = settings
        self._metrics = metrics
        self._prompts: ChatPrompts | None = None
        self._public = {"/health", "/metrics"} if settings.metrics_public else {"/health"}

    def application(self) -> web.Application:
        """Return the aiohttp application."""
        application = web.Application(middlewares=[self._guard], client_max_size=self._settings.max_body_bytes)
        application.add_routes(
            [
                web.get("/health", self.health),
                web.get("/metrics", self.metrics),
                web.get("/v1/models", self.models),
                web.post("/v1/chat/completions", self.chat),
                web.post("/v1/completions", self.complete),
                web.post("/v1/embeddings", self.embed),
            ]
        )
        return application

    async def health(self, _request: web.Request) -> web.Response:
        """Answer 200 when requests can be served, else 503."""
        status = self._scheduler.status()
        body: Json = {"status": "ok" if status.state == "ready" else status.state}
        if status.state == "ready":
            body |= {
                "slots": status.slots,
                "active": status.active,
                "queued": status.queued,
                "generated_tokens": self._metrics.tokens,
                "context_tokens": self._scheduler.context_tokens,
            }
        return web.json_response(body, status=200 if status.state == "ready" else 503)

    async def metrics(self, _request: web.Request) -> web.Response:
        """Answer in Prometheus's text format."""
        return web.Response(body=self._metrics.render(), headers={hdrs.CONTENT_TYPE: "text/plain; version=0.0.4"})

    async def models(self, _request: web.Request) -> web.Response:
        """List the one model."""
        info = self._scheduler.info
        model: Json = {
            "id": self._name,
            "object": "model",
            "created": 0,
            "owned_by": "rouse",
            "meta": {
                "description": info.description,
                "context_tokens": self._scheduler.context_tokens,
                "trained_context_tokens": info.trained_context,
                "vocabulary": info.vocabulary,
            },
        }
        return web.json_response({"object": "list", "data": [model]})

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/chat/completions."""
        body = await read_body(request)
        prompts = self._chat_prompts()

        def prepare() -> tuple[ChatRequest, GenerationRequest]:
            parsed = parse(ChatRequest, body)
            parsed.check_supported()
            self._check_model(parsed.model)
            return parsed, prompts.generation(parsed, self._scheduler.context_tokens)

        parsed, generation = await _aside(prepare, len(body))
        return await self._answer(request, parsed, generation, ChatResponses(self._name))

    async def complete(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/completions."""
        body = await read_body(request)
        backend = self._scheduler.backend

        def prepare() -> tuple[CompletionRequest, GenerationRequest]:
            parsed = parse(CompletionRequest, body)
            parsed.check_supported()
            self._check_model(parsed.model)
            return parsed, GenerationRequest(
                prompt=with_bos(backend, self._tokens(parsed.prompt, "prompt")),
                max_tokens=parsed.most_tokens or self._scheduler.context_tokens,
                sampling=parsed.sampling(backend.info.vocabulary),
                stops=tuple(parsed.stop or ()),
            )

        parsed, generation = await _aside(prepare, len(body))
        return await self._answer(request, parsed, generation, CompletionResponses(self._name))

    async def embed(self, request: web.Request) -> web.Response:
        """POST /v1/embeddings."""
        body = await read_body(request)
        backend = self._scheduler.backend
        if not self._settings.embeddings:
            raise UnsupportedError("This expert serves no embeddings: its setting `embeddings` is off.")

        def prepare() -> tuple[EmbeddingRequest, list[list[int]]]:
            parsed = parse(EmbeddingRequest, body)
            self._check_model(parsed.model)
            if parsed.dimensions is not None:
                raise UnsupportedError("The number of dimensions can't be chosen.", param="dimensions")
            texts = [[text] for text in parsed.input] if isinstance(parsed.input[0], str) else [parsed.input]
            if len(texts) > MOST_INPUTS:
                raise InvalidRequestError(f"input: at most {MOST_INPUTS} texts a request.", param="input")
            return parsed, [with_bos(backend, self._tokens(text, "input")) for text in texts]

        parsed, inputs = await _aside(prepare, len(body))
        data: list[Json] = []
        for index, tokens in enumerate(inputs):
            vector = await self._scheduler.call(functools.partial(_embedding, tokens))
            data.append({"object": "embedding", "index": index, "embedding": _encoded(vector, parsed)})
        count = sum(map(len, inputs))
        usage = {"prompt_tokens": count, "total_tokens": count}
        return web.json_response({"object": "list", "data": data, "model": self._name, "usage": usage})

    async def _answer(
        self,
        request: web.Request,
        parsed: ChatRequest | CompletionRequest,
        generation_request: GenerationRequest,
        responses: ChatResponses,
    ) -> web.StreamResponse:
        """Generate; if the client goes away, aiohttp cancels this and the slot is free a step later."""
        generation = self._scheduler.submit(generation_request)
        try:
            if not parsed.stream:
                return web.json_response(responses.whole(*await generation.finished()))
            response = web.StreamResponse(
                headers={hdrs.CONTENT_TYPE: "text/event-stream", hdrs.CACHE_CONTROL: "no-cache"}
            )
            async for events in generation:
                failure = events[-1] if isinstance(events[-1], Failed) else None
                if failure is not None and not response.prepared:
                    raise failure.error
                if not response.prepared:
                    await response.prepare(request)
                if failure is not None:
                    await response.write(sse(body_of(failure.error)))
                else:
                    await response.write(responses.chunks(events, include_usage=parsed.includes_usage))
            await response.write_eof()
            return response
        finally:
            generation.cancel()

    def _chat_prompts(self) -> ChatPrompts:
        if self._prompts is None:
            self._prompts = ChatPrompts(self._scheduler.backend)
        return self._prompts

    def _check_model(self, asked: str | None) -> None:
        if asked not in (None, "", "default", self._name):
            raise ModelNotFoundError(str(asked)[:200], self._name)

    def _tokens(self, text: list[str] | list[int], param: str) -> list[int]:
        if isinstance(text[0], str):
            return self._scheduler.backend.tokenize(text[0], special=True)
        vocabulary = self._scheduler.info.vocabulary
        tokens = [token for token in text if isinstance(token, int)]
        if min(tokens) < 0 or max(tokens) >= vocabulary:
            raise InvalidRequestError(f"{param}: token ids are 0 to {vocabulary - 1}.", param=param)
        return tokens

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Authenticate, turn errors into responses, count."""
        resource = request.match_info.route.resource
        endpoint = resource.canonical if resource else "other"
        status = 499
        try:
            response = await self._guarded(request, handler)
            status = response.status
        finally:
            self._metrics.count_request(endpoint, status)
        return response

    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path not in self._public and not self._authorised(request):
            return plain_response(401)
        try:
            return await handler(request)
        except ExpertError as error:
            return response_to(error)
        except web.HTTPException as error:
            message = None
            if error.status == 413:
                message = f"The body is larger than {self._settings.max_body_bytes} bytes."
            elif error.status == 400:
                message = error.reason
            return plain_response(error.status, message)
        except ConnectionError:
            raise
        except Exception:  # noqa: BLE001  # the client must hear of every failure
            _log.exception("%s %s failed by an error of the expert's own", request.method, request.path)
            return plain_response(500)

    def _authorised(self, request: web.Request) -> bool:
        scheme, _, key = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        given = key.strip().encode(errors="surrogateescape")
        return hmac.compare_digest(given, self._key) and scheme.lower() == "bearer"


async def _aside[T](work: Callable[[], T], size: int) -> T:
    """Do something that takes time in proportion to the body; a large one outside of the event loop."""
    return work() if size < LONG_BODY else await asyncio.to_thread(work)


def _embedding(tokens: Sequence[int], backend: Backend) -> list[float]:
    return backend.embed(tokens)


def _encoded(vector: list[float], request: EmbeddingRequest) -> list[float] | str:
    if request.encoding_format == "float":
        return vector
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
