import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from appliance.experts.backend import Backend
from appliance.experts.engine.scheduler import Scheduler
from appliance.experts.server import running_expert
from appliance.experts.settings import EngineSettings
from tests.unit.experts.fake_backend import FakeBackend

# Compute threads that spin while they wait make a busy machine slower by a factor of ten.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

KEY = "a-test-key"
MODEL = Path(__file__).parents[3] / "build/models/SmolLM2-135M-Instruct.Q4_1.gguf"


@dataclass
class Client:
    """A session on a running expert."""

    url: str
    session: aiohttp.ClientSession
    scheduler: Scheduler

    async def post(self, path: str, body: object) -> tuple[int, Any]:
        async with self.session.post(self.url + path, json=body) as response:
            return response.status, await response.json()

    async def chat(self, text: str, **fields: Any) -> tuple[int, Any]:
        return await self.post("/v1/chat/completions", {"messages": [{"role": "user", "content": text}], **fields})

    async def idle(self) -> None:
        """Wait until no slot is busy."""
        async with asyncio.timeout(10):
            while self.scheduler.status().active or self.scheduler.status().queued:
                await asyncio.sleep(0.005)


type Serve = Callable[..., AbstractAsyncContextManager[Client]]


@asynccontextmanager
async def serving(backend: Callable[[], Backend], settings: EngineSettings) -> AsyncIterator[Client]:
    async with (
        running_expert(
            name="tiny", backend=backend, host="127.0.0.1", port=0, api_key=KEY, settings=settings
        ) as expert,
        aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {KEY}"},
            connector=aiohttp.TCPConnector(force_close=True),
            timeout=aiohttp.ClientTimeout(60),
        ) as session,
    ):
        await expert.scheduler.start()
        yield Client(expert.url, session, expert.scheduler)


@pytest.fixture(autouse=True)
def _bounded() -> Iterator[None]:
    """No test may hang."""

    def stop(*_: object) -> None:
        raise TimeoutError("the test took longer than a minute")

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 60)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, previous)


@pytest.fixture
def settings() -> EngineSettings:
    return EngineSettings(context_tokens=512, slots=4, queue_limit=4, batch_tokens=64, prefill_chunk=8, drain_seconds=2)


@pytest.fixture
def fake(settings: EngineSettings) -> FakeBackend:
    return FakeBackend(settings)


@pytest.fixture
async def client(fake: FakeBackend, settings: EngineSettings) -> AsyncIterator[Client]:
    async with serving(lambda: fake, settings) as running:
        yield running


@pytest.fixture(scope="session")
def model() -> Path:
    path = Path(os.environ.get("ROUSE_TEST_MODEL", MODEL))
    if not path.is_file():
        pytest.skip(f"there is no model at {path}; set ROUSE_TEST_MODEL")
    return path
