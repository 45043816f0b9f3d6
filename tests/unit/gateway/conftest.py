"""A real gateway on loopback in front of scripted experts."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from appliance.bus.messages import Capability, ExpertStatus
from appliance.gateway.externals import NodeTrust
from appliance.gateway.registry import ExpertRegistry
from appliance.gateway.service import running_gateway
from appliance.gateway.waking import Waker
from appliance.http_server import process_registry
from appliance.routing.decision import Router
from appliance.settings.model import AgentSettings, GatewaySettings
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

    async def add(
        self, name: str, script: Script, *, capabilities: tuple[Capability, ...] = ALL, node: str = "attic"
    ) -> None:
        """Serve a scripted expert and announce it as ready."""

        async def handle(request: web.Request) -> web.StreamResponse:
            assert request.headers["Authorization"] == f"Bearer {EXPERT_KEY}"
            self.seen.append((name, await request.json()))
            return await script(request)

        app = web.Application()
        app.router.add_post("/v1/{tail:.*}", handle)
        url = await serve(app, self._stack)
        await self.announce(name, f"{url}/v1", capabilities, node)

    async def announce(
        self, name: str, url: str, capabilities: tuple[Capability, ...] = ALL, node: str = "attic"
    ) -> None:
        status = ExpertStatus(expert=name, node=node, state="ready", url=url, capabilities=capabilities, slots=1)
        await self.registry._on_expert(status, {"node": node, "expert": name})

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


type Start = Callable[..., Awaitable[Gateway]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Start a gateway with settings of its own."""
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession())

        async def start_gateway(
            *,
            agents: Mapping[str, AgentSettings] | None = None,
            router: Router | None = None,
            waker: Waker | None = None,
            wanted: Callable[[str], None] = lambda _expert: None,
            trust: NodeTrust | None = None,
            **settings: Any,
        ) -> Gateway:
            quick = {"connect_timeout": 0.5, "first_token_timeout": 1, "answer_timeout": 3}
            running = running_gateway(
                settings=GatewaySettings.model_validate({**quick, **settings}),
                agents=agents or {},
                expert_key=EXPERT_KEY,
                api_key=KEY,
                router=router,
                exported=process_registry(),
                waker=waker,
                wanted=wanted,
                trust=trust,
            )
            gateway = await stack.enter_async_context(running)
            return Gateway(await serve(gateway.application, stack), gateway.registry, http, stack)

        yield start_gateway


@pytest.fixture
async def gateway(start: Start) -> Gateway:
    return await start(fallbacks=("spare",))


def whole(text: str) -> dict[str, Any]:
    """Return an answer in one piece."""
    return {"choices": [{"index": 0, "message": {"role": "assistant", "content": text}}]}


def event(text: str, **more: Any) -> bytes:
    """Return an event of a stream."""
    chunk = {"choices": [{"index": 0, "delta": {"content": text}}], **more}
    return b"data: %b\n\n" % json.dumps(chunk).encode()


DONE = b"data: [DONE]\n\n"


def answers(text: str, status: int = 200, *, after: float = 0.0) -> Script:
    """An expert that answers with JSON, some seconds later."""

    async def script(_request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(after)
        body = whole(text) if status == 200 else {"error": {"message": text}}
        return web.json_response(body, status=status)

    return script


def says(body: str | bytes, content_type: str = "application/json", status: int = 200) -> Script:
    """An expert that answers with a body as it stands."""

    async def script(_request: web.Request) -> web.StreamResponse:
        raw = body if isinstance(body, bytes) else body.encode()
        return web.Response(body=raw, content_type=content_type, status=status)

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


async def text_of(response: aiohttp.ClientResponse) -> str:
    """Return what an answer in one piece says."""
    return str((await response.json())["choices"][0]["message"]["content"])


def texts(stream: bytes) -> list[str]:
    """Return the pieces of a streamed answer, and the code of the error that ends it."""
    pieces = []
    for line in stream.splitlines():
        if line.startswith(b"data: {"):
            chunk = json.loads(line[6:])
            pieces.append(chunk["error"]["code"] if "error" in chunk else chunk["choices"][0]["delta"]["content"])
    return pieces
