"""The HTTP API: OpenAI's endpoints, health and metrics."""

import hmac
import logging
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import hdrs, web

from appliance.experts.engine.scheduler import Scheduler
from appliance.experts.errors import ExpertError
from appliance.experts.http.errors import plain_response, response_to
from appliance.experts.http.generating import Generating
from appliance.experts.http.vectors import Vectors
from appliance.experts.http.wire import Json
from appliance.experts.metrics import ExpertMetrics
from appliance.experts.settings import EngineSettings

_log = logging.getLogger(__name__)

type Admits = Callable[[ssl.SSLObject | None, str], bool]
"""Tells from a connection and a path whether a request is answered at all."""
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
        admits: Admits | None = None,
    ) -> None:
        """Take what the handlers need; `api_key` must not be empty.

        `admits` tells from the certificate that a client shows, and from the path, whether it is answered at all.
        """
        if not api_key:
            raise ValueError("An expert needs an API key.")
        self._name = name
        self._key = api_key.encode()
        self._scheduler = scheduler
        self._settings = settings
        self._metrics = metrics
        self._admits = admits
        self._generating = Generating(name=name, scheduler=scheduler, settings=settings)
        self._vectors = Vectors(name=name, scheduler=scheduler, settings=settings)
        self._requests = 0
        self._idle_since = time.monotonic()
        self._public = {"/health", "/metrics"} if settings.metrics_public else {"/health"}

    def application(self) -> web.Application:
        """Return the aiohttp application."""
        application = web.Application(middlewares=[self._guard], client_max_size=self._settings.max_body_bytes)
        application.add_routes(
            [
                web.get("/health", self.health),
                web.get("/metrics", self.metrics),
                web.get("/v1/models", self.models),
                web.post("/v1/chat/completions", self._generating.chat),
                web.post("/v1/completions", self._generating.complete),
                web.post("/v1/embeddings", self._vectors.embed),
                web.post("/v1/rerank", self._vectors.rerank),
                web.post("/prefixes/save", self.save_prefixes),
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
                "idle_seconds": self.idle_seconds,
            }
        return web.json_response(body, status=200 if status.state == "ready" else 503)

    @property
    def idle_seconds(self) -> float:
        """Time without a request for the model, by CLOCK_MONOTONIC: a machine's sleep does not count."""
        return 0.0 if self._requests else round(time.monotonic() - self._idle_since, 3)

    async def save_prefixes(self, _request: web.Request) -> web.Response:
        """Write to disk which beginnings of prompts are worth it, and answer when they are there.

        The node daemon asks for it before the machine sleeps. It is no part of OpenAI's API.
        """
        return web.json_response({"saved": await self._scheduler.save_prefixes()})

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
        if self._admits is not None and not self._admits(request.get_extra_info("ssl_object"), request.path):
            return plain_response(403, "This certificate is not one that may ask this expert.")
        if request.path not in self._public and not self._authorised(request):
            return plain_response(401)
        try:
            async with self._noted(request):
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

    @asynccontextmanager
    async def _noted(self, request: web.Request) -> AsyncIterator[None]:
        """Note that the model is used, by requests that come with the key and ask for more than a list."""
        if request.method != hdrs.METH_POST or not request.path.startswith("/v1/"):
            yield
            return
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1
            self._idle_since = time.monotonic()

    def _authorised(self, request: web.Request) -> bool:
        scheme, _, key = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        given = key.strip().encode(errors="surrogateescape")
        return hmac.compare_digest(given, self._key) and scheme.lower() == "bearer"
