"""A broker that stops in the middle of an answer and comes back without its retained messages."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial

import pytest
import pytest_asyncio

from appliance.bus.topics import AGENT_ANNOUNCEMENT, HUB_ANNOUNCEMENT, HUB_STATUS, NODE_ANNOUNCEMENT, NODE_STATUS
from scripts.house.mosquitto import program
from tests.faults.house import LONG, NODE, House, is_online, running_house

pytestmark = [pytest.mark.broker, pytest.mark.model, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    if program() is None:
        pytest.skip("mosquitto is not installed: apt-get install mosquitto")
    async with running_house(tmp_path_factory.mktemp("house"), "mosquitto") as running:
        yield running


async def interrupt(house: House, request_id: str, *, seconds: float) -> None:
    """Stop the broker in the middle of an answer."""
    await house.client.ask(request_id, text=LONG, seconds=seconds)
    async with asyncio.timeout(30):
        while not house.client.replies(request_id):
            await asyncio.sleep(0.002)
    assert house.broker is not None
    await house.broker.stop()
    assert house.client.replies(request_id)[-1].kind == "text"


async def restart(house: House) -> None:
    assert house.broker is not None
    house.observed.latest.clear()
    await house.broker.start()
    await house.client.bus.wait_connected(30)


async def test_everything_reconnects_and_the_answer_arrives_whole(house: House) -> None:
    await interrupt(house, "interrupted", seconds=120)
    await restart(house)
    seen = house.observed.latest
    await house.observed.until(lambda: is_online(seen.get(HUB_STATUS.at())), "hub online")
    await house.observed.until(lambda: is_online(seen.get(NODE_STATUS.at(node=NODE))), "node online")
    for topic in (HUB_ANNOUNCEMENT.at(), NODE_ANNOUNCEMENT.at(node=NODE), AGENT_ANNOUNCEMENT.at(agent="home")):
        await house.observed.until(partial(seen.__contains__, topic), topic)
    await house.observed.until_expert("small", "ready")
    # A client that was away asks again with the same id: it gets the end of the one run.
    await house.client.ask("interrupted", text=LONG, seconds=120)
    final = await house.client.final("interrupted", seconds=60)
    assert final.kind == "finished"
    sent = house.client.replies("interrupted")
    texts = [reply for reply in sent if reply.kind == "text"]
    assert final.text.startswith(texts[0].text)
    await house.answers_on_the_bus("after-the-restart")


async def test_an_answer_whose_deadline_passes_meanwhile_is_given_up(house: House) -> None:
    expert = house.expert("small")
    await house.client.ask("out-of-time", text=LONG, seconds=3)
    async with asyncio.timeout(30):
        while not house.client.replies("out-of-time"):
            await asyncio.sleep(0.002)
    expert.suspend()
    try:
        assert house.broker is not None
        await house.broker.stop()
        await asyncio.sleep(3)
    finally:
        expert.resume()
    await house.until_idle()
    await restart(house)
    await house.client.ask("out-of-time", seconds=60)
    final = await house.client.final("out-of-time", seconds=30)
    assert (final.kind, final.code) == ("failed", "expired")
    await house.answers_on_the_bus("after-the-deadline")
    for name in ("hub", "node"):
        assert "Traceback" not in house.log(name)
