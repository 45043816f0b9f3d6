"""A second expert that is asked when the first one is slow."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from tests.unit.gateway.conftest import (
    DONE,
    KEY,
    Gateway,
    Script,
    Start,
    answers,
    event,
    streams,
    text_of,
    texts,
    whole,
)

HEADERS = {"Authorization": f"Bearer {KEY}"}


def slow(left: asyncio.Event) -> Script:
    """An expert that takes its time, and notes that it was left."""

    async def script(_request: web.Request) -> web.StreamResponse:
        try:
            await asyncio.sleep(0.9)
        except asyncio.CancelledError:
            left.set()
            raise
        return web.json_response(whole("slow"))

    return script


type Prepared = Callable[..., Awaitable[tuple[Gateway, asyncio.Event]]]


@pytest.fixture
def hedging(start: Start) -> Prepared:
    async def prepare(**settings: object) -> tuple[Gateway, asyncio.Event]:
        gateway = await start(**{"hedge_after": 0.1, "fallbacks": ["large", "quick"], **settings})
        left = asyncio.Event()
        await gateway.add("large", slow(left))
        await gateway.add("quick", answers("quick"))
        return gateway, left

    return prepare


async def test_the_faster_one_answers_and_the_other_is_left_at_once(hedging: Prepared) -> None:
    gateway, left = await hedging()
    async with gateway.post() as response:
        told = (await response.json())["rouse"]
    assert [(one["expert"], one["outcome"]) for one in told["attempts"]] == [
        ("large", "another was faster"),
        ("quick", "answered"),
    ]
    async with asyncio.timeout(10):
        await left.wait()
    async with gateway.http.get(f"{gateway.url}/health", headers=HEADERS) as response:
        endpoints = (await response.json())["endpoints"]
    assert [(one["state"], one["in_flight"]) for one in endpoints] == [("closed", 0)] * 2
    async with gateway.http.get(f"{gateway.url}/metrics", headers=HEADERS) as response:
        assert 'rouse_gateway_hedges_total{winner="second"} 1.0' in await response.text()


async def test_a_stream_is_hedged_up_to_its_first_token(start: Start) -> None:
    gateway = await start(hedge_after=0.1, fallbacks=["large", "quick"])
    await gateway.add("large", streams(event("slow"), then="hang", pause=0.5))
    await gateway.add("quick", streams(event("quick"), DONE))
    async with gateway.post(stream=True) as response:
        begun = await response.content.readany()
    assert texts(begun) == ["slow"]
    assert [name for name, _ in gateway.seen] == ["large"]


async def test_the_first_may_still_win(start: Start) -> None:
    gateway = await start(hedge_after=0.1, fallbacks=["large", "slower"])
    await gateway.add("large", answers("large", after=0.3))
    await gateway.add("slower", answers("slower", after=0.8))
    async with gateway.post() as response:
        assert await text_of(response) == "large"
    assert [name for name, _ in gateway.seen] == ["large", "slower"]


async def test_when_both_fail_the_third_is_asked(start: Start) -> None:
    gateway = await start(hedge_after=0.05, fallbacks=["large", "other", "third"])
    await gateway.add("large", answers("broken", 500, after=0.2))
    await gateway.add("other", answers("broken", 500, after=0.2))
    await gateway.add("third", answers("third"))
    async with gateway.post() as response:
        assert await text_of(response) == "third"
        assert response.headers["X-Rouse-Attempts"] == "3"


@pytest.mark.parametrize(
    ("settings", "body"),
    [
        ({"hedge_after": None}, {}),
        ({}, {"model": "large"}),
        ({}, {"tools": [{"type": "function", "function": {"name": "f"}}]}),
        ({}, {"messages": [{"role": "user", "content": "x" * 5000}]}),
    ],
    ids=["off", "named", "tools", "long"],
)
async def test_who_is_not_hedged(hedging: Prepared, settings: dict[str, object], body: dict[str, Any]) -> None:
    gateway, left = await hedging(**settings)
    async with gateway.post(**body) as response:
        assert await text_of(response) == "slow"
    assert not left.is_set()
    assert [name for name, _ in gateway.seen] == ["large"]


async def test_a_named_expert_is_hedged_on_another_node(hedging: Prepared) -> None:
    gateway, left = await hedging()
    await gateway.add("large", answers("other node"), node="cellar")
    async with gateway.post(model="large") as response:
        assert await text_of(response) == "other node"
    async with asyncio.timeout(10):
        await left.wait()
