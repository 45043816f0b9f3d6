"""A thousand random and mutated bodies: nothing but documented answers, and the next good request is answered."""

import asyncio
import json

from tests.fuzzing import bodies, drawn
from tests.unit.experts.conftest import Client
from tests.unit.experts.good_bodies import GOOD

PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")
DOCUMENTED = {200, 400, 404, 413, 503}


async def answer(client: Client, path: str, body: bytes) -> None:
    async with client.session.post(client.url + path, data=body) as response:
        text = await response.text()
        assert response.status in DOCUMENTED, (path, body, text)
        if response.status != 200:
            error = json.loads(text)["error"]
            assert error["message"]
            assert set(error) >= {"message", "type", "param", "code"}


async def test_a_thousand_bodies(client: Client) -> None:
    everything = [(path, body) for body in drawn(bodies(GOOD), 400) for path in PATHS]
    for start in range(0, len(everything), 8):
        batch = everything[start : start + 8]
        await asyncio.gather(*(answer(client, path, body) for path, body in batch))
        if start % 200 == 0:
            assert (await client.chat("still there"))[1]["choices"][0]["message"]["content"] == "still there"
    await client.idle()
    assert (await client.chat("still there"))[0] == 200
