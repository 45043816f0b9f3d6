"""A thousand random and mutated bodies an endpoint: nothing but documented answers, and good requests are answered."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from appliance.experts.settings import EngineSettings
from tests.fuzzing import bodies, drawn
from tests.unit.experts.conftest import Client, serving
from tests.unit.experts.fake_backend import FakeBackend
from tests.unit.experts.good_bodies import GOOD

PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/rerank")
DOCUMENTED = {200, 400, 404, 413, 503}


@pytest.fixture
async def client(settings: EngineSettings) -> AsyncIterator[Client]:
    settings = settings.model_copy(update={"embeddings": True})
    async with serving(lambda: FakeBackend(settings), settings) as running:
        yield running


async def answer(client: Client, path: str, body: bytes) -> int:
    async with client.session.post(client.url + path, data=body) as response:
        text = await response.text()
        assert response.status in DOCUMENTED, (path, body, text)
        if response.status != 200:
            error = json.loads(text)["error"]
            assert error["message"]
            assert set(error) >= {"message", "type", "param", "code"}
        return response.status


@pytest.mark.parametrize("path", PATHS)
async def test_a_thousand_bodies(client: Client, path: str) -> None:
    good = GOOD[PATHS.index(path)]
    everything = [*drawn(bodies((good,)), 700), *drawn(bodies(GOOD), 300)]
    statuses: list[int] = []
    for start in range(0, len(everything), 8):
        batch = everything[start : start + 8]
        statuses += await asyncio.gather(*(answer(client, path, body) for body in batch))
        if start % 200 == 0:
            assert (await client.chat("still there"))[1]["choices"][0]["message"]["content"] == "still there"
    assert statuses.count(200) > 50
    assert statuses.count(400) > 50
    await client.idle()
    assert (await client.chat("still there"))[0] == 200


async def test_the_good_bodies_are_good(client: Client) -> None:
    for path, body in zip(PATHS, GOOD, strict=True):
        assert await answer(client, path, json.dumps(body).encode()) == 200
