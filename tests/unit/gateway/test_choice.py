"""Whom a gateway asks, over real sockets, and what it tells about it."""

import asyncio
import logging
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from aiohttp import web

from appliance.bus.messages import NodeTelemetry
from appliance.routing.decision import Decision
from appliance.settings.model import AgentSettings
from tests.unit.gateway.conftest import (
    DONE,
    KEY,
    Gateway,
    Start,
    answers,
    event,
    says,
    streams,
    text_of,
    texts,
    whole,
)

HEADERS = {"Authorization": f"Bearer {KEY}"}


class Chooser:
    """A router that always says the same."""

    def __init__(self, *experts: str, reason: str = "It is about maths.") -> None:
        self.asked: list[tuple[str, tuple[str, ...]]] = []
        self._decision = Decision(experts=experts, router="knn-1", reason=reason)

    def choose(self, text: str, experts: Sequence[str]) -> Decision:
        self.asked.append((text, tuple(experts)))
        return self._decision


async def test_the_router_reads_the_users_latest_words_and_is_obeyed(start: Start) -> None:
    router = Chooser("maths")
    gateway = await start(router=router, fallbacks=["home"])
    await gateway.add("home", answers("home"))
    await gateway.add("maths", answers("maths"))
    messages = [
        {"role": "user", "content": "Hello."},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": [{"type": "text", "text": "Seven"}, {"type": "text", "text": "times six?"}]},
        {"role": "tool", "content": "42"},
    ]
    async with gateway.post(messages=messages) as response:
        assert await text_of(response) == "maths"
        told = (await response.json())["rouse"]
    assert router.asked == [("Seven\ntimes six?", ("home", "maths"))]
    assert (told["router"], told["reason"]) == ("knn-1", "It is about maths.")
    assert response.headers["X-Rouse-Router"] == "knn-1"


async def test_who_names_an_expert_is_not_routed(start: Start) -> None:
    router = Chooser("maths")
    gateway = await start(router=router)
    await gateway.add("home", answers("home"))
    await gateway.add("maths", answers("maths"))
    async with gateway.post(model="home") as response:
        assert await text_of(response) == "home"
        assert (await response.json())["rouse"]["router"] == "request"
    assert router.asked == []


async def test_a_router_that_fails_is_done_without(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def choose(self, text: str, experts: Sequence[str]) -> Decision:
            raise ZeroDivisionError(text, experts)

    gateway = await start(router=Broken(), fallbacks=["home"])
    await gateway.add("home", answers("home"))
    await gateway.add("maths", answers("maths"))
    with caplog.at_level(logging.CRITICAL, logger="appliance.gateway.plan"):
        async with gateway.post() as response:
            assert await text_of(response) == "home"


async def test_a_router_that_takes_too_long_is_done_without(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    release = threading.Event()

    class Slow:
        def choose(self, text: str, experts: Sequence[str]) -> Decision:
            release.wait(20)
            return Decision(experts=("maths",), router=text, reason=str(experts))

    gateway = await start(router=Slow(), fallbacks=["home"])
    await gateway.add("home", answers("home"))
    await gateway.add("maths", answers("maths"))
    async with gateway.post() as response:
        assert await text_of(response) == "home"
    release.set()
    assert "going on without it" in caplog.text


async def test_an_agents_list_comes_after_the_routers_choice(start: Start) -> None:
    gateway = await start(
        router=Chooser("maths"),
        fallbacks=["spare"],
        always_on="tiny",
        agents={"home": AgentSettings(fallbacks=("house",)), "fixed": AgentSettings(expert="house")},
    )
    for name in ("spare", "house", "tiny"):
        await gateway.add(name, answers(name))
    await gateway.add("maths", answers("broken", 500))
    async with gateway.post(model="agent/home") as response:
        told = (await response.json())["rouse"]
    assert (told["expert"], told["router"], told["reason"]) == ("house", "agent", "It is in the agent's list.")
    assert [(one["expert"], one["outcome"]) for one in told["attempts"]] == [
        ("maths", "HTTP 500: broken"),
        ("house", "answered"),
    ]
    assert response.headers["X-Rouse-Attempts"] == "2"
    async with gateway.post(model="agent/fixed") as response:
        assert (await response.json())["rouse"]["expert"] == "house"
    async with gateway.post(model="agent/nobody") as response:
        assert response.status == 404
    async with gateway.http.get(f"{gateway.url}/v1/models", headers=HEADERS) as response:
        listed = [model["id"] for model in (await response.json())["data"]]
    assert listed == ["auto", "agent/home", "agent/fixed", "house", "maths", "spare", "tiny"]


async def test_what_is_always_on_answers_when_the_list_does_not(start: Start) -> None:
    gateway = await start(fallbacks=["large"], always_on="tiny")
    await gateway.add("another", answers("another"))
    await gateway.add("tiny", answers("tiny"))
    await gateway.add_dead("large")
    async with gateway.post() as response:
        assert await text_of(response) == "tiny"


async def test_an_image_goes_to_an_expert_that_sees(start: Start) -> None:
    gateway = await start()
    await gateway.add("blind", answers("blind"))
    await gateway.add("seeing", answers("seeing"), capabilities=("chat", "vision"))
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    async with gateway.post(messages=[{"role": "user", "content": [picture]}]) as response:
        assert await text_of(response) == "seeing"
    async with gateway.http.get(f"{gateway.url}/metrics", headers=HEADERS) as response:
        skipped = 'rouse_gateway_skipped_candidates_total{expert="blind",reason="capability"} 1.0'
        assert skipped in await response.text()


async def test_a_stream_says_in_its_first_event_who_answers(gateway: Gateway) -> None:
    await gateway.add("spare", streams(b": wait\n\n", event("one"), event("two", usage=None), DONE, pause=0.02))
    async with gateway.post(stream=True) as response:
        body = await response.read()
    assert texts(body) == ["one", "two"]
    assert body.startswith(b': wait\n\ndata: {"rouse":{"expert":"spare","node":"attic",')
    assert body.count(b'"rouse"') == 1
    assert body.endswith(DONE)


async def test_a_header_takes_no_line_break_from_a_router(start: Start) -> None:
    gateway = await start(router=Chooser("a", reason="Bad\r\nSet-Cookie: x=1 \u00e9" + "y" * 1000))
    await gateway.add("a", answers("a"))
    await gateway.add("b", answers("b"))
    async with gateway.post() as response:
        reason = response.headers["X-Rouse-Reason"]
        assert "Set-Cookie" not in response.headers
    assert reason.startswith("Bad??Set-Cookie: x=1 ?yyy")
    assert len(reason) == 200


async def test_of_equals_the_one_that_knows_the_prompt_is_asked(gateway: Gateway) -> None:
    for node in ("attic", "cellar", "shed"):
        await gateway.add("spare", answers(node), node=node)
    long = [{"role": "system", "content": "You are the house. " * 100}]
    other = [{"role": "system", "content": "Extract what matters. " * 100}]
    telemetry = NodeTelemetry(cpu=0, memory=0, disk=0, uptime=1, active_requests=1)
    async with gateway.post(messages=long) as response:
        assert response.headers["X-Rouse-Node"] == "attic"
    await gateway.registry._on_telemetry(telemetry, {"node": "attic"})
    async with gateway.post(messages=other) as response:
        assert response.headers["X-Rouse-Node"] == "cellar"
    await gateway.registry._on_telemetry(telemetry.model_copy(update={"active_requests": 0}), {"node": "attic"})
    for messages, node in ((long, "attic"), (other, "cellar")):
        async with gateway.post(messages=[*messages, {"role": "user", "content": "Hello"}]) as response:
            assert response.headers["X-Rouse-Node"] == node


async def test_of_equals_the_least_busy_is_asked(gateway: Gateway) -> None:
    for node in ("attic", "cellar"):
        await gateway.add("spare", answers(node, after=0.3), node=node)

    async def node_of() -> str:
        async with gateway.post() as response:
            return str(response.headers["X-Rouse-Node"])

    assert sorted(await asyncio.gather(*(node_of() for _ in range(6)))) == ["attic"] * 3 + ["cellar"] * 3


STRANGE = {
    "html": says("<html>It works!</html>", "text/html"),
    "html that claims to be JSON": says("<html>"),
    "an error with status 200": says('{"error": {"message": "out of memory"}}'),
    "no choices": says('{"id": "x"}'),
    "an array": says("[]"),
    "nothing": says(""),
    "not UTF-8": says(b'{"choices": ["\xff"]}'),
    "a redirect": says("", status=302),
    "a wrong key": says('{"error": "no"}', status=401),
    "not found": says('{"error": "no such model"}', status=404),
    "a stream nobody asked for": streams(event("x"), DONE),
}


@pytest.mark.parametrize("name", STRANGE)
async def test_a_strange_answer_is_none(gateway: Gateway, name: str) -> None:
    await gateway.add("large", STRANGE[name])
    await gateway.add("spare", answers("spare"))
    async with gateway.post(model="large") as response:
        assert await text_of(response) == "spare"


STRANGE_STREAMS = {
    "whole": answers("whole"),
    "html": says("<html>", "text/html"),
    "an error first": streams(b'data: {"error": {"message": "out of memory"}}\n\n', DONE),
    "no JSON": streams(b"data: hello\n\n", DONE),
    "no choices": streams(b'data: {"id": 1}\n\n', DONE),
    "done at once": streams(DONE),
    "nothing": streams(),
    "endless": streams(*([b"x" * 65536] * 8), then="hang"),
}


@pytest.mark.parametrize("name", STRANGE_STREAMS)
async def test_a_strange_stream_is_none(gateway: Gateway, name: str) -> None:
    await gateway.add("large", STRANGE_STREAMS[name])
    await gateway.add("spare", streams(event("spare"), DONE))
    async with gateway.post(model="large", stream=True) as response:
        assert texts(await response.read()) == ["spare"]


async def test_huge_headers_are_no_answer(gateway: Gateway) -> None:
    async def script(_request: web.Request) -> web.StreamResponse:
        return web.json_response(whole("large"), headers={"X-Huge": "x" * 100_000})

    await gateway.add("large", script)
    await gateway.add("spare", answers("spare"))
    async with gateway.post(model="large") as response:
        assert await text_of(response) == "spare"


async def test_an_answer_that_is_too_long_is_none(start: Start) -> None:
    gateway = await start(max_body_bytes=10_000)
    await gateway.add("large", answers("x" * 20_000))
    await gateway.add("spare", answers("spare"))
    async with gateway.post(model="large") as response:
        assert await text_of(response) == "spare"


async def test_a_stream_that_just_ends_has_broken_off(gateway: Gateway) -> None:
    await gateway.add("large", streams(event("one"), event("two")))
    async with gateway.post(model="large", stream=True) as response:
        assert texts(await response.read()) == ["one", "two", "expert_failed"]


async def test_a_stream_that_ends_with_an_error_of_the_expert_is_passed_on(gateway: Gateway) -> None:
    error = b'data: {"error": {"message": "out of memory", "code": "engine_failed"}}\n\n'
    await gateway.add("large", streams(event("one"), error))
    async with gateway.post(model="large", stream=True) as response:
        assert texts(await response.read()) == ["one", "engine_failed"]
    assert "open" not in str(await _states(gateway))


async def _states(gateway: Gateway) -> list[str]:
    async with gateway.http.get(f"{gateway.url}/health", headers=HEADERS) as response:
        return [one["state"] for one in (await response.json())["endpoints"]]


async def test_a_stream_that_never_ends_is_ended(start: Start) -> None:
    gateway = await start(stream_timeout=0.5)
    await gateway.add("large", streams(*([event("more")] * 50), then="hang", pause=0.05))
    async with gateway.post(model="large", stream=True) as response:
        assert texts(await response.read())[-1] == "expert_failed"


async def test_too_many_requests_at_once_are_refused(start: Start) -> None:
    gateway = await start(max_requests=2)
    await gateway.add("large", answers("large", after=0.5))

    async def status() -> tuple[int, str | None]:
        async with gateway.post() as response:
            return response.status, response.headers.get("Retry-After")

    found = await asyncio.gather(*(status() for _ in range(4)))
    assert sorted(found, key=str) == [(200, None), (200, None), (503, "5"), (503, "5")]
    async with gateway.http.get(f"{gateway.url}/metrics", headers=HEADERS) as response:
        text = await response.text()
    assert "rouse_gateway_refused_requests_total 2.0" in text
    assert "rouse_gateway_active_requests 0.0" in text


async def test_tokens_are_counted_from_what_the_answer_says(gateway: Gateway) -> None:
    usage = {"prompt_tokens": 7, "completion_tokens": 3}

    async def script(_request: web.Request) -> web.StreamResponse:
        return web.json_response({**whole("one"), "usage": usage})

    last = b'data: {"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 20}}\n\n'
    await gateway.add("large", script)
    await gateway.add("spare", streams(event("one"), event("two"), last, DONE, pause=0.01))
    async with gateway.post(model="large") as response:
        await response.read()
    async with gateway.post(model="spare", stream=True) as response:
        await response.read()
    async with gateway.http.get(f"{gateway.url}/metrics", headers=HEADERS) as response:
        text = await response.text()
    assert 'rouse_gateway_tokens_total{expert="large",kind="prompt"} 7.0' in text
    assert 'rouse_gateway_tokens_total{expert="spare",kind="completion"} 20.0' in text
    assert 'rouse_gateway_inter_chunk_seconds_bucket{expert="spare",le="+Inf"}' in text


async def test_with_the_key_health_tells_the_state_of_each(gateway: Gateway) -> None:
    await gateway.add_dead("large")
    await gateway.add("spare", answers("spare"))
    async with gateway.post(model="large") as response:
        await response.read()
    async with gateway.http.get(f"{gateway.url}/health", headers=HEADERS) as response:
        told = await response.json()
    assert {one["expert"]: one["state"] for one in told["endpoints"]} == {"large": "open", "spare": "closed"}
    async with gateway.http.get(f"{gateway.url}/metrics", headers=HEADERS) as response:
        assert 'rouse_gateway_breaker_state{expert="large",node="attic",state="open"} 1.0' in await response.text()
    async with gateway.http.get(f"{gateway.url}/health") as response:
        assert await response.json() == {"status": "ok", "experts": 2}


async def test_many_numbers_and_letters_reach_the_expert_as_they_were(gateway: Gateway) -> None:
    await gateway.add("large", answers("large"))
    body: dict[str, Any] = {
        "messages": [{"role": "user", "content": 'a "quoted" \\ text, \u00e9, \U0001f600, \x7f, \u2028', "model": "x"}],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"b": 1, "a": None}}}],
        "temperature": 0.1,
        "seed": 2**63,
        "logit_bias": {"5": -100},
        "stop": ["\n\n"],
    }
    async with gateway.post(model="large", **body) as response:
        assert response.status == 200
    assert gateway.seen == [("large", {**body, "model": "large"})]
