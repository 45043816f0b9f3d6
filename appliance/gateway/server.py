"""The gateway's HTTP API, as OpenAI's (https://platform.openai.com/docs/api-reference)."""

import hmac
import json
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from appliance.gateway.dispatch import EVENT_STREAM, MAX_QUOTED, Dispatcher
from appliance.gateway.errors import ExpertDiedError, GatewayError, InvalidRequestError, UnauthorizedError
from appliance.gateway.metrics import GatewayMetrics
from appliance.gateway.registry import ExpertRegistry
from appliance.http_server import read_body
from appliance.routing.candidates import AUTO

_log = logging.getLogger(__name__)

PATHS = {"/chat/completions": "chat", "/completions": "completions", "/embeddings": "embeddings"}
"""Forwarded paths below `/v1`, each with the capability that it needs."""

type Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class GatewayServer:
    """Handlers of the HTTP API."""

    def __init__(
        self,
        *,
        dispatcher: Dispatcher,
        registry: ExpertRegistry,
        metrics: GatewayMetrics,
        api_key: str,
        max_body_bytes: int,
    ) -> None:
        self._dispatcher = dispatcher
        self._registry = registry
        self._metrics = metrics
        self._authorization = f"Bearer {api_key}".encode()
        self._max_body_bytes = max_body_bytes

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
            headers = {"Retry-After": "5"} if error.status == 503 else {}
            return web.json_response(error.body(), status=error.status, headers=headers)
        except web.HTTPException as error:
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
            return web.json_response(failure.body(), status=failure.status)

    def _check_key(self, request: web.Request) -> None:
        given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        if not hmac.compare_digest(given, self._authorization):
            raise UnauthorizedError("The API key is missing or wrong: send it as 'Authorization: Bearer <key>'.")

    async def _health(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "experts": len(self._registry.ready)})

    async def _render_metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._metrics.render(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _models(self, _request: web.Request) -> web.Response:
        names = (AUTO, *sorted({endpoint.name for endpoint in self._registry.ready}))
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "rouse"} for name in names]
        return web.json_response({"object": "list", "data": data})

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        path = request.path.removeprefix("/v1")
        body = await _read_json_object(request)
        needs = {PATHS[path]} | ({"tools"} if body.get("tools") else set())
        started = time.perf_counter()
        with self._metrics.active.track_inprogress():
            async with self._dispatcher.open(path, body, frozenset(needs)) as answer:
                expert = answer.endpoint.name
                self._metrics.first_byte.labels(expert=expert).observe(time.perf_counter() - started)
                self._metrics.requests.labels(path=path, status=answer.status, expert=expert).inc()
                headers = {"Content-Type": answer.content_type, "X-Rouse-Expert": expert}
                if answer.status == 503:
                    headers["Retry-After"] = "5"
                reply = web.StreamResponse(status=answer.status, headers=headers)
                if answer.content_type != EVENT_STREAM:
                    reply.content_length = len(answer.first)
                await reply.prepare(request)
                try:
                    async for chunk in answer.chunks():
                        await reply.write(chunk)
                except ExpertDiedError as error:
                    await reply.write(f"\n\ndata: {json.dumps(error.body())}\n\n".encode())
                await reply.write_eof()
                return reply


async def _read_json_object(request: web.Request) -> dict[str, Any]:
    try:
        body = json.loads(await read_body(request))
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(f"The body is not valid JSON: {error}") from error
    if not isinstance(body, dict):
        raise InvalidRequestError("The body must be a JSON object.")
    if not isinstance(body.get("model", AUTO), str):
        raise InvalidRequestError("'model' must be a string: an expert's name or 'auto'.")
    return body
