"""One model over two workers of this machine, one of which is killed."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from appliance.bus.messages import ExpertStatus
from appliance.security.layout import secret_file
from scripts.house.appliance import MODEL
from scripts.house.processes import child, free_port
from tests.faults.house import ENDLESS, LONG, House, events, running_house

pytestmark = [
    pytest.mark.broker,
    pytest.mark.model,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(300),
]
FAR = "far"
QUESTION = "What is the capital of France?"


class Worker:
    """A worker's process, configured with the state folder of the house: they share its key."""

    def __init__(self, folder: Path, state: Path) -> None:
        self.folder = folder
        self.state = state
        self.port = free_port()
        self.process: asyncio.subprocess.Process | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "rouse.toml").write_text(
            f"[paths]\nstate = {json.dumps(str(self.state))}\n"
            f"[rpc_worker]\nport = {self.port}\nrpc_port = {free_port()}\nthreads = 1\n"
        )
        command = [sys.executable, "-m", "appliance", "--config-dir", str(self.folder), "rpc-worker"]
        async with child(command, log=self.folder / "log", grace=5) as self.process:
            yield

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def spread(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[House, list[Worker]]]:
    """A house with an expert of its own, and one that waits for workers that are not there yet."""
    folder = tmp_path_factory.mktemp("spread")
    workers = [Worker(folder / name, folder / "rouse" / "state") for name in ("one", "two")]
    group = (
        f"[experts.{FAR}]\nmodel = {json.dumps(str(MODEL))}\ncontext = 1024\nslots = 2\n"
        f"workers = {json.dumps([worker.address for worker in workers])}\n"
    )
    async with running_house(folder, "amqtt", group=group) as house:
        yield house, workers


async def answer(house: House, model: str) -> tuple[str, str]:
    """Return a greedy answer and who gave it."""
    async with house.chat(QUESTION, model=model, temperature=0, max_tokens=24) as response:
        body = await response.json()
        assert response.status == 200, (body, house.logs())
        return body["choices"][0]["message"]["content"], response.headers["X-Rouse-Expert"]


async def until_it_waits(house: House, address: str) -> ExpertStatus:
    def waits() -> bool:
        status = house.observed.expert(FAR)
        return status is not None and status.state == "starting" and address in (status.error or "")

    await house.observed.until(waits, f"{FAR} waits for {address}", seconds=90)
    status = house.observed.expert(FAR)
    assert status is not None
    return status


async def metrics(house: House) -> str:
    status = house.observed.expert(FAR)
    assert status is not None
    headers = {"Authorization": f"Bearer {house.appliance.secret('expert.key')}"}
    async with house.http.get(f"{str(status.url).removesuffix('/v1')}/metrics", headers=headers) as response:
        return await response.text()


async def test_the_answer_is_the_same_and_a_lost_worker_is_waited_for(spread: tuple[House, list[Worker]]) -> None:
    house, (one, two) = spread
    async with AsyncExitStack() as stack:
        waiting = await until_it_waits(house, one.address)
        assert "waiting for workers" in str(waiting.error)
        assert "Connection refused" in str(waiting.error)

        for worker in (one, two):
            await stack.enter_async_context(worker.running())
        ready = await house.observed.until_expert(FAR, "ready", seconds=120)
        await house.until_answered_by(FAR)
        text, expert = await answer(house, FAR)
        assert expert == FAR
        assert (text, "small") == await answer(house, "small")
        assert f'rouse_expert_worker_up{{expert="{FAR}",worker="{two.address}"}} 1.0' in await metrics(house)
        assert await clients(house, one) == await clients(house, two) == 1

        async with house.chat(LONG, model=FAR, **(ENDLESS | {"max_tokens": 900})) as response:
            assert response.status == 200
            begun = await response.content.readany()
            one.kill()
            rest = await response.content.read()
        last = events(begun + rest)[-1]
        assert last["error"]["code"] == "expert_failed"
        failed = await house.observed.until_expert(FAR, "failed", seconds=60)
        assert "most likely because a worker was lost" in str(failed.error)
        await until_it_waits(house, one.address)
        assert await house.answers("small") == "small"

        await stack.enter_async_context(one.running())
        again = await house.observed.until_expert(FAR, "ready", seconds=120)
        assert again.restarts > ready.restarts
        await house.until_answered_by(FAR)
        assert await answer(house, FAR) == (text, FAR)


async def clients(house: House, worker: Worker) -> int:
    headers = {"Authorization": f"Bearer {house.appliance.secret('expert.key')}"}
    async with house.http.get(f"http://{worker.address}/health", headers=headers) as response:
        return int((await response.json())["clients"])


async def test_strangers_learn_little_of_a_worker(spread: tuple[House, list[Worker]], tmp_path: Path) -> None:
    house, _ = spread
    worker = Worker(tmp_path, tmp_path / "state")
    async with worker.running(), aiohttp.ClientSession() as http:
        async with asyncio.timeout(60):
            while not worker.folder.joinpath("log").read_bytes().count(b'"url"'):
                await asyncio.sleep(0.05)
        async with http.get(f"http://{worker.address}/health") as response:
            assert await response.json() == {"status": "ok"}
        # The key of another house.
        headers = {"Authorization": f"Bearer {house.appliance.secret('expert.key')}"}
        async with http.get(f"http://{worker.address}/metrics", headers=headers) as response:
            assert response.status == 401
        key = secret_file(tmp_path / "state", "expert.key").read_text().strip()
        async with http.get(f"http://{worker.address}/metrics", headers={"Authorization": f"Bearer {key}"}) as response:
            assert "rouse_rpc_worker_accepting 1.0" in await response.text()
        second = [sys.executable, "-m", "appliance", "--config-dir", str(worker.folder), "rpc-worker"]
        process = await asyncio.create_subprocess_exec(*second, stderr=asyncio.subprocess.PIPE)
        _, errors = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == 1
        assert b"can't listen on" in errors
