"""Experts that are killed while they answer."""

import asyncio
import time

import pytest

from tests.faults.house import ENDLESS, LONG, House, events

pytestmark = [pytest.mark.broker, pytest.mark.model, pytest.mark.asyncio(loop_scope="module")]


async def test_over_http_the_stream_ends_with_an_error_and_the_expert_comes_back(house: House) -> None:
    before = await house.observed.until_expert("small", "ready")
    async with house.chat(LONG, **ENDLESS) as response:
        assert response.status == 200
        begun = await response.content.readany()
        house.expert("small").kill()
        rest = await response.content.read()
    last = events(begun + rest)[-1]
    assert last["error"]["code"] == "expert_failed"
    assert "Ask again" in last["error"]["message"]
    failed = await house.observed.until_expert("small", "failed")
    assert failed.error == "it was killed by signal 9 (Killed)"
    # Asked while the node waits before it starts the expert again: the gateway waits as well.
    assert await house.answers() == "small"
    after = await house.observed.until_expert("small", "ready")
    assert after.restarts == before.restarts + 1
    assert "starting it again in 1 s" in house.log("node")


async def test_on_the_bus_the_reply_fails_and_the_next_request_is_answered(house: House) -> None:
    await house.observed.until_expert("small", "ready")
    await house.client.ask("killed-midway", text=LONG)
    async with asyncio.timeout(30):
        while not house.client.replies("killed-midway"):
            await asyncio.sleep(0.002)
    house.expert("small").kill()
    final = await house.client.final("killed-midway", seconds=30)
    assert (final.kind, final.code) == ("failed", "model_error")
    assert "Ask again" in final.message
    await house.observed.until_expert("small", "failed")
    await house.answers_on_the_bus(f"after-{time.time_ns()}")


async def test_a_client_that_leaves_frees_the_slot(house: House) -> None:
    async with house.chat(LONG, **ENDLESS) as response:
        await response.content.readany()
        response.close()
    await house.until_idle()
