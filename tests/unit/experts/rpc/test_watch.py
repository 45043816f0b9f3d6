"""An expert's look at its workers, played by small HTTP servers."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest

from appliance.experts.rpc import watch as watching
from appliance.experts.rpc.watch import LLAMA_CPP, WorkerWatch
from scripts.house.processes import free_port

KEY = "a-key"
GOOD: dict[str, Any] = {
    "status": "ok",
    "rpc_port": 50052,
    "llama_cpp": LLAMA_CPP,
    "clients": 0,
    "memory_bytes": 1,
    "devices": [],
}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "PROBE_SECONDS", 0.01)
    monkeypatch.setattr(watching, "PROBE_TIMEOUT_SECONDS", 0.5)


class Worker:
    """Answers what it is told."""

    def __init__(self) -> None:
        self.answer: Callable[[web.Request], web.StreamResponse] = lambda _: web.json_response(GOOD)
        self.address = ""

    async def health(self, request: web.Request) -> web.StreamResponse:
        assert request.headers["Authorization"] == f"Bearer {KEY}"
        if self.answer is SILENT:
            await asyncio.sleep(30)
        return self.answer(request)


def SILENT(_: web.Request) -> web.StreamResponse:  # noqa: N802  # a constant that is a function
    raise AssertionError


@asynccontextmanager
async def worker() -> AsyncIterator[Worker]:
    playing = Worker()
    application = web.Application()
    application.router.add_get("/health", playing.health)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    playing.address = f"127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield playing
    finally:
        await runner.cleanup()


@asynccontextmanager
async def watch(*addresses: str) -> AsyncIterator[WorkerWatch]:
    async with aiohttp.ClientSession() as http:
        yield WorkerWatch(addresses, expert="far", http=http, api_key=KEY)


async def test_workers_that_are_ready_are_named_by_their_rpc_ports() -> None:
    async with worker() as one, worker() as two, watch(one.address, two.address) as watched:
        two.answer = lambda _: web.json_response(GOOD | {"rpc_port": 7})
        said: list[str] = []
        assert await watched.until_ready(said.append) == ("127.0.0.1:50052", "127.0.0.1:7")
        assert said == []


@pytest.mark.parametrize(
    ("answer", "obstacle"),
    [
        (lambda _: web.json_response(GOOD | {"clients": 1}), "it serves another expert"),
        (lambda _: web.json_response(GOOD | {"status": "failed"}, status=503), "its RPC server has ended"),
        (lambda _: web.json_response(GOOD | {"llama_cpp": "0.1"}), "it runs llama.cpp of 0.1, this expert"),
        (lambda _: web.json_response({"status": "ok"}), "does not accept this machine's key"),
        (lambda _: web.json_response(GOOD | {"rpc_port": 0}), "answers something that is no worker's health"),
        (lambda _: web.json_response({}, status=401), "does not accept this machine's key"),
        (lambda _: web.json_response([], status=404), "answers something that is no worker's health"),
        (lambda _: web.Response(text="<html>"), "answers something that is no worker's health"),
        (lambda _: web.Response(body=b"\xff" * 100_000), "answers something that is no worker's health"),
        (lambda _: web.Response(status=302, headers={"Location": "/"}), "answers something that is no worker's health"),
        (SILENT, "no answer within"),
    ],
)
async def test_an_obstacle_is_said_once_and_waited_for(
    answer: Callable[[web.Request], web.StreamResponse], obstacle: str
) -> None:
    async with worker() as playing, watch(playing.address) as watched:
        playing.answer = answer
        said: list[str] = []
        ready = asyncio.create_task(watched.until_ready(said.append))
        async with asyncio.timeout(10):
            while not said:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            playing.answer = lambda _: web.json_response(GOOD)
            assert await ready == ("127.0.0.1:50052",)
        assert len(said) == 1
        assert obstacle in said[0]
        assert playing.address in said[0]


async def test_a_worker_that_is_not_there_is_lost_after_a_few_looks_and_counted_as_down() -> None:
    address = f"127.0.0.1:{free_port()}"
    async with worker() as playing, watch(playing.address, address) as watched, asyncio.timeout(10):
        assert await watched.until_lost() == f"the worker at {address} is lost: can't be reached (Connection refused)"
        registry = CollectorRegistry()
        registry.register(watched)
        metrics = generate_latest(registry).decode()
    assert f'rouse_expert_worker_up{{expert="far",worker="{playing.address}"}} 1.0' in metrics
    assert f'rouse_expert_worker_up{{expert="far",worker="{address}"}} 0.0' in metrics


async def test_a_worker_that_misses_a_look_is_not_lost() -> None:
    async with worker() as playing, watch(playing.address) as watched:
        looks = 0

        def now_and_then(_: web.Request) -> web.StreamResponse:
            nonlocal looks
            looks += 1
            return web.json_response(GOOD) if looks % watching.MAX_FAILED_PROBES == 0 else web.Response(status=500)

        playing.answer = now_and_then
        lost = asyncio.create_task(watched.until_lost())
        async with asyncio.timeout(20):
            while looks < 5 * watching.MAX_FAILED_PROBES:
                await asyncio.sleep(0.01)
        assert not lost.done()
        lost.cancel()
