"""A real gateway on loopback in front of scripted experts."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from appliance.bus.messages import Capability, ExpertStatus
from appliance.gateway.dispatch import Dispatcher
from appliance.gateway.metrics import GatewayMetrics
from appliance.gateway.registry import ExpertRegistry
from appliance.gateway.server import GatewayServer
from appliance.settings.model import GatewaySettings
from scripts.house.processes import free_port

KEY = "gateway-key"
EXPERT_KEY = "expert-key"
ALL: tuple[Capability, ...] = ("chat", "completions", "tools")

type Script = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Gateway:
    """The gateway under test, its registry, and a way to put experts behind it."""

    def __init__(self, url: str, registry: ExpertRegistry, http: aiohttp.ClientSession, stack: AsyncExitStack) -> None:
        self.url = url
        self.registry = registry
        self.http = http
        self._stack = stack
        self.seen: list[tuple[str, dict[str, Any]]] = []

    async def add(self, name: str, script: Script, *, capabilities: tuple[Capability, ...] = ALL) -> None:
        """Serve a scripted expert and announce it as ready."""

        async def handle(request: web.Request) -> web.StreamResponse:
            assert request.headers["Authorization"] == f"Bearer {EXPERT_KEY}"
            self.seen.append((name, await request.json()))
            return await script(request)

        app = web.Application()
        app.router.add_post("/v1/{tail:.*}", handle)
        url = await serve(app, self._stack)
        await self.announce(name, f"{url}/v1", capabilities)

    async def announce(self, name: str, url: str, capabilities: tuple[Capability, ...] = ALL) -> None:
        status = ExpertStatus(expert=name, node="attic", state="ready", url=url, capabilities=capabilities)
        await self.registry._on_expert(status, {"node": "attic", "expert": name})

    async def add_dead(self, name: str) -> None:
        """Announce an expert whose port nobody listens on."""
        await self.announce(name, f"http://127.0.0.1:{free_port()}/v1")

    def post(self, path: str = "/v1/chat/completions", key: str = KEY, **body: Any) -> Any:
        headers = {"Authorization": f"Bearer {key}"}
        return self.http.post(self.url + path, json={"messages": [], **body}, headers=headers)


async def serve(app: web.Application, stack: AsyncExitStack) -> str:
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return f"http://127.0.0.1:{runner.addresses[0][1]}"


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession())
        registry, metrics = ExpertRegistry(), GatewayMetrics()
        settings = GatewaySettings(fallbacks=("spare",), connect_timeout=0.5, first_token_timeout=1, answer_timeout=3)
        dispatcher = Dispatcher(http=http, registry=registry, settings=settings, expert_key=EXPERT_KEY, metrics=metrics)
        server = GatewayServer(
            dispatcher=dispatcher, registry=registry, metrics=metrics, api_key=KEY, max_body_bytes=100_000
        )
        yield Gateway(await serve(server.application(), stack), registry, http, stack)
        await asyncio.sleep(0)


def answers(text: str, status: int = 200, *, after: float = 0.0) -> Script:
    """An expert that answers with JSON, some seconds later."""

    async def script(_request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(after)
        return web.json_response({"text": text}, status=status)

    return script


def streams(*chunks: bytes, then: str = "end", pause: float = 0.0) -> Script:
    """An expert that streams chunks and then ends, dies or hangs."""

    async def script(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for chunk in chunks:
            await response.write(chunk)
            await asyncio.sleep(pause)
        if then == "die":
            assert request.transport is not None
            request.transport.abort()
        elif then == "hang":
            await asyncio.sleep(30)
        return response

    return script
