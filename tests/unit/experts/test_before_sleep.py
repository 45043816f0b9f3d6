"""What the node daemon asks an expert before the machine sleeps: since when it is idle, and to save its prefixes."""

import asyncio
import threading
from pathlib import Path

import aiohttp
import pytest

from appliance.experts.engine import scheduler
from appliance.experts.prefixes.store import SUFFIX
from appliance.experts.settings import EngineSettings
from tests.unit.experts.conftest import serving
from tests.unit.experts.fake_backend import FakeBackend

LONG = "You are the voice of the house and answer in one short sentence, whatever anybody asks of you today. "


@pytest.fixture
def settings(tmp_path: Path) -> EngineSettings:
    return EngineSettings(context_tokens=2048, slots=2, prefix_folder=tmp_path / "prefixes", drain_seconds=1)


async def test_when_the_answer_comes_frequent_prefixes_are_on_disk(settings: EngineSettings, tmp_path: Path) -> None:
    async with serving(lambda: FakeBackend(settings), settings) as client:
        for question in ("What time is it?", "Who is there?", "Is it cold?"):
            status, _ = await client.chat(LONG + question)
            assert status == 200
        status, answer = await client.post("/prefixes/save", {})
        assert status == 200
        assert list((tmp_path / "prefixes").glob("*" + SUFFIX)), answer
        assert await client.post("/prefixes/save", {}) == (200, {"saved": 0})


async def test_without_a_folder_there_is_nothing_to_save() -> None:
    settings = EngineSettings(context_tokens=2048, slots=2, drain_seconds=1)
    async with serving(lambda: FakeBackend(settings), settings) as client:
        assert await client.post("/prefixes/save", {}) == (200, {"saved": 0})


async def test_only_who_has_the_key_can_ask_for_it(settings: EngineSettings) -> None:
    async with (
        serving(lambda: FakeBackend(settings), settings) as client,
        aiohttp.ClientSession() as stranger,
        stranger.post(client.url + "/prefixes/save") as response,
    ):
        assert response.status == 401


async def test_idle_is_since_the_last_request_that_may_use_the_model(settings: EngineSettings) -> None:
    slow = FakeBackend(settings)
    slow.step_seconds = 0.02
    async with serving(lambda: slow, settings) as client, aiohttp.ClientSession() as stranger:

        async def idle() -> float:
            async with client.session.get(client.url + "/health") as response:
                return float((await response.json())["idle_seconds"])

        await asyncio.sleep(0.3)
        before = await idle()
        assert before >= 0.3
        # Neither looking at it, nor a stranger's attempts, nor what the daemon asks for is use.
        async with client.session.get(client.url + "/v1/models") as response:
            assert response.status == 200
        async with stranger.post(client.url + "/v1/chat/completions", json={}) as response:
            assert response.status == 401
        await client.post("/prefixes/save", {})
        assert await idle() >= before
        asking = asyncio.create_task(client.chat("Say something long, please."))
        while not client.scheduler.status().active:
            await asyncio.sleep(0.005)
        assert await idle() == 0
        await asking
        assert await idle() < before


async def test_the_engines_beat_returns_also_while_it_loads_and_not_while_it_hangs(
    settings: EngineSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "BEAT_SECONDS", 0.1)
    backend = FakeBackend(settings)
    async with serving(lambda: backend, settings) as client:
        await asyncio.wait_for(client.scheduler.beat(), 5)
        hanging = asyncio.Event()
        loop = asyncio.get_running_loop()
        release = asyncio.Event()

        def hang(_: object) -> None:
            loop.call_soon_threadsafe(hanging.set)
            asyncio.run_coroutine_threadsafe(release.wait(), loop).result(30)

        job = asyncio.create_task(client.scheduler.call(hang))
        await hanging.wait()
        beat = asyncio.create_task(client.scheduler.beat())
        await asyncio.sleep(0.5)
        assert not beat.done()
        release.set()
        await asyncio.gather(job, beat)


async def test_an_engine_that_computes_for_minutes_is_alive(
    settings: EngineSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "BEAT_SECONDS", 0.2)
    settings = settings.model_copy(update={"queue_limit": 0})
    async with serving(lambda: FakeBackend(settings), settings) as client:
        computed, beats = threading.Event(), 0

        def compute(_: object) -> None:
            while not computed.is_set():
                sum(range(1000))

        job = asyncio.create_task(client.scheduler.call(compute))
        try:
            while beats < 2 * settings.slots:
                await asyncio.wait_for(client.scheduler.beat(), 30)
                beats += 1
            assert not job.done()
            # The beats have taken nobody's place in the queue.
            other = asyncio.create_task(client.scheduler.call(lambda _: "done"))
        finally:
            computed.set()
        await job
        assert await other == "done"
