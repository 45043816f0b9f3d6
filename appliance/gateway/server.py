"""The gateway's HTTP API, as OpenAI's (https://platform.openai.com/docs/api-reference)."""

import hmac
import json
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from dataclasses import asdict

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from appliance.gateway.dispatch import Answer, Dispatcher
from appliance.gateway.errors import BusyError, ExpertDiedError, GatewayError, UnauthorizedError
from appliance.gateway.keep_alive import KeptAlive
from appliance.gateway.metrics import EndpointStates, GatewayMetrics
from appliance.gateway.registry import ExpertRegistry
from appliance.gateway.request import MAX_QUOTED, PATHS, read_request
from appliance.gateway.waking import Bedroom
from appliance.http_server import read_body
from appliance.routing.candidates import Policy, names_of

_log = logging.getLogger(__name__)

RETRY_AFTER_SECONDS = 5

type Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class GatewayServer:
    """Handlers of the HTTP API."""

    def __init__(
        self,
        *,
        dispatcher: Dispatcher,
        registry: ExpertRegistry,
        bedroom: Bedroom,
        states: EndpointStates,
        policies: Mapping[str, Policy],
        metrics: GatewayMetrics,
        exported: CollectorRegistry,
        api_key: str,
        max_body_bytes: int,
        max_requests: int,
        keep_alive_after: float | None = None,
    ) -> None:
        """Take the parts.

        Args:
            dispatcher: answers requests.
            registry: which experts there are.
            bedroom: which of them sleep and can be woken.
            states: how each of them is.
            policies: by what a request may give as its model instead of an expert's name.
            metrics: the gateway's own.
            exported: what /metrics shows: all of the process.
            api_key: what clients send.
            max_body_bytes: the longest body of a request.
            max_requests: at the same time.
            keep_alive_after: seconds after which a streaming client that waits for a machine is sent comments; None
                is never.
        """
        self._dispatcher = dispatcher
        self._registry = registry
        self._bedroom = bedroom
        self._states = states
        self._policies = policies
        self._metrics = metrics
        self._exported = exported
        self._authorization = f"Bearer {api_key}".encode()
        self._max_body_bytes = max_body_bytes
        self._max_requests = max_requests
        self._keep_alive_after = keep_alive_after
        self._requests = 0

    def application(self) -> web.Application:
        """Build the aiohttp application."""
        app = web.Application(client_max_size=self._max_body_bytes, middlewares=[self._guard])
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._render_metrics)
        app.router.add_get("/v1/models", self._models)
        for path in PATHS:
            app.router.add_post(f"/v1{path}", self._forward)
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Check the key, and give every error OpenAI's shape."""
        try:
            if request.path != "/health":
                self._check_key(request)
            return await handler(request)
        except GatewayError as error:
            self._count_refusal(request, error.status)
            headers = {"Retry-After": str(RETRY_AFTER_SECONDS)} if error.status == 503 else {}
            return web.json_response(error.body(), status=error.status, headers=headers)
        except web.HTTPException as error:
            self._count_refusal(request, error.status)
            message = f"{request.method} {request.path[:MAX_QUOTED]}: {error.reason}"
            kind = "invalid_request_error" if error.status < 500 else "server_error"
            body = {"error": {"message": message, "type": kind, "param": None, "code": None}}
            allow = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
            return web.json_response(body, status=error.status, headers=allow)
        except ConnectionError:
            raise
        except Exception:  # noqa: BLE001 - the client must hear of every failure
            _log.exception("%s %s failed by an error of the gateway's own", request.method, request.path)
            failure = GatewayError("The gateway failed. Its log says why.")
            self._count_refusal(request, failure.status)
            return web.json_response(failure.body(), status=failure.status)

    def _check_key(self, request: web.Request) -> None:
        if not self._is_authorized(request):
            raise UnauthorizedError("The API key is missing or wrong: send it as 'Authorization: Bearer <key>'.")

    def _is_authorized(self, request: web.Request) -> bool:
        given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        return hmac.compare_digest(given, self._authorization)

    def _count_refusal(self, request: web.Request, status: int) -> None:
        path = request.path.removeprefix("/v1")
        if path in PATHS:
            self._metrics.requests.labels(path=path, status=status, expert="").inc()

    async def _health(self, request: web.Request) -> web.Response:
        """Say that the gateway is there; who has the key hears about each expert too."""
        body: dict[str, object] = {"status": "ok", "experts": len(self._registry.ready)}
        if self._is_authorized(request):
            body["endpoints"] = [asdict(state) for state in self._states()]
            body["asleep"] = [{"expert": one.name, "node": one.node} for one in self._bedroom.endpoints]
        return web.json_response(body)

    async def _render_metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._exported), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _models(self, _request: web.Request) -> web.Response:
        names = (*self._policies, *names_of((*self._registry.ready, *self._bedroom.endpoints)))
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "rouse"} for name in names]
        return web.json_response({"object": "list", "data": data})

    @contextmanager
    def _admitted(self) -> Iterator[None]:
        """Count a request in and out.

        Raises:
            BusyError: there are too many.
        """
        if self._requests >= self._max_requests:
            self._metrics.refused.inc()
            raise BusyError("The gateway has too many requests at once. Try again in a moment.")
        self._requests += 1
        self._metrics.active.set(self._requests)
        try:
            yield
        finally:
            self._requests -= 1
            self._metrics.active.set(self._requests)

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        started = time.perf_counter()
        with self._admitted():
            path = request.path.removeprefix("/v1")
            wish = read_request(path, await read_body(request), self._policies)
            async with AsyncExitStack() as stack:
                reply = KeptAlive(request, after=self._keep_alive_after if wish.streamed else None)
                try:
                    answer = await reply.during(stack.enter_async_context(self._dispatcher.open(wish)))
                except GatewayError as error:
                    if reply.begun is None:
                        raise
                    self._metrics.requests.labels(path, 200, "").inc()
                    await reply.begun.write(_error_event(error))
                    await reply.begun.write_eof()
                    return reply.begun
                expert = answer.origin.candidate.endpoint.name
                self._metrics.first_token.labels(expert).observe(time.perf_counter() - started)
                self._metrics.requests.labels(path, answer.status, expert).inc()
                return await self._reply(request, answer, reply.begun)

    async def _reply(
        self, request: web.Request, answer: Answer, begun: web.StreamResponse | None
    ) -> web.StreamResponse:
        headers = {"Content-Type": answer.content_type, **answer.origin.headers()}
        if not answer.streamed:
            if begun is None:
                return web.Response(status=answer.status, body=answer.first, headers=headers)
            await begun.write(b"data: %b\n\n" % b" ".join(answer.first.split(b"\n")))
            await begun.write_eof()
            return begun
        headers["Cache-Control"] = "no-cache"
        reply = begun or web.StreamResponse(status=answer.status, headers=headers)
        if begun is None:
            await reply.prepare(request)
        try:
            await answer.relay(reply.write)
        except ExpertDiedError as error:
            await reply.write(b"\n\n" + _error_event(error))
        await reply.write_eof()
        return reply


def _error_event(error: GatewayError) -> bytes:
    return f"data: {json.dumps(error.body())}\n\n".encode()
