"""A real server on loopback whose answers are scripted."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from appliance.benchmark.client import Target, session

DONE = b"data: [DONE]\n\n"

type Script = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ScriptedServer:
    """Answers what its script says, and remembers what it was asked."""

    def __init__(self) -> None:
        self.url = ""
        self.script: Script = tokens(3)
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.running = self.most_running = 0

    @property
    def target(self) -> Target:
        return Target(self.url, "key", timeout=5)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(await request.json())
        self.headers.append(dict(request.headers))
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            return await self.script(request)
        finally:
            self.running -= 1


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    scripted = ScriptedServer()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", scripted.answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    scripted.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield scripted
    await runner.cleanup()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with session() as client:
        yield client


def event(**fields: Any) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def token(text: str = " word", reason: str | None = None) -> bytes:
    return event(choices=[{"index": 0, "delta": {"content": text}, "finish_reason": reason}])


def usage(prompt: int, answer: int, cached: int = 0) -> bytes:
    counts = {"prompt_tokens": prompt, "completion_tokens": answer, "prompt_tokens_details": {"cached_tokens": cached}}
    return event(choices=[], usage=counts)


def tokens(count: int, *, pause: float = 0.0, counted: int | None = None) -> Script:
    """Stream so many tokens; the server counts `counted`, or says nothing of it."""
    parts = [token() for _ in range(count)] + [event(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])]
    return streams(*parts, *([usage(20, counted, 12)] if counted is not None else []), DONE, pause=pause)


def streams(*parts: bytes, pause: float = 0.0, then: str = "end", status: int = 200) -> Script:
    """Send parts, each on its own, and then end, cut the connection or hang."""

    async def script(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=status, headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for part in parts:
            await response.write(part)
            await asyncio.sleep(pause)
        if then == "cut":
            assert request.transport is not None
            request.transport.abort()
        elif then == "hang":
            await asyncio.sleep(30)
        return response

    return script


def says(body: Any, status: int) -> Script:
    """Answer with JSON."""

    async def script(_request: web.Request) -> web.StreamResponse:
        return web.json_response(body, status=status)

    return script
