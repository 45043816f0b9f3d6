"""The gateway over real sockets."""

import asyncio
from typing import Any

import pytest
from aiohttp import web

from appliance.bus.messages import Capability, ExpertStatus, Presence
from appliance.gateway.balance import Balance
from appliance.gateway.health import Health
from appliance.gateway.registry import MAX_EXPERTS, RETURN_SECONDS, ExpertRegistry
from tests.unit.gateway.conftest import DONE, KEY, Gateway, Script, answers, event, streams, text_of, texts


async def test_the_named_expert_answers_under_its_own_name(gateway: Gateway) -> None:
    await gateway.add("small", answers("small"))
    await gateway.add("large", answers("large"))
    async with gateway.post(model="large") as response:
        assert (response.status, await text_of(response)) == (200, "large")
        assert response.headers["X-Rouse-Expert"] == "large"
    assert gateway.seen[0][1]["model"] == "large"


async def test_auto_takes_the_fallback_and_tells_which(gateway: Gateway) -> None:
    await gateway.add("another", answers("another"))
    await gateway.add("spare", answers("spare"))
    async with gateway.post(model="auto") as response:
        assert response.headers["X-Rouse-Expert"] == "spare"
    assert gateway.seen[0][1]["model"] == "spare"


@pytest.mark.parametrize(
    "broken",
    [
        answers("overloaded", 503),
        answers("crashed", 500),
        streams(then="die"),
        streams(then="hang"),
    ],
    ids=["503", "500", "dies", "hangs"],
)
async def test_before_the_first_token_another_expert_takes_over(gateway: Gateway, broken: Script) -> None:
    await gateway.add("large", broken)
    await gateway.add("spare", streams(event("spare"), DONE))
    async with gateway.post(model="large", stream=True) as response:
        assert response.headers["X-Rouse-Expert"] == "spare"
        assert texts(await response.read()) == ["spare"]


async def test_an_answer_in_one_piece_may_take_longer_than_a_first_token(gateway: Gateway) -> None:
    await gateway.add("large", answers("whole", after=1.5))
    await gateway.add("spare", answers("another"))
    async with gateway.post(model="large") as response:
        assert (response.headers["X-Rouse-Expert"], await text_of(response)) == ("large", "whole")


async def test_an_answer_in_one_piece_does_not_take_for_ever(gateway: Gateway) -> None:
    await gateway.add("large", answers("whole", after=30))
    await gateway.add("spare", answers("another"))
    async with gateway.post(model="large") as response:
        assert (response.headers["X-Rouse-Expert"], await text_of(response)) == ("spare", "another")


async def test_a_dead_expert_costs_one_connection_error_and_is_asked_last_for_a_while(
    gateway: Gateway,
) -> None:
    await gateway.add_dead("large")
    await gateway.add("spare", answers("spare"))
    for _ in range(3):
        async with gateway.post(model="large") as response:
            assert response.headers["X-Rouse-Expert"] == "spare"
    assert 'rouse_gateway_failovers_total{expert="large"} 1.0' in await metrics_of(gateway)


async def test_after_the_first_token_the_expert_never_changes(gateway: Gateway) -> None:
    await gateway.add("large", streams(event("one"), then="die", pause=0.05))
    await gateway.add("spare", streams(event("two"), DONE))
    async with gateway.post(model="large", stream=True) as response:
        body = await response.read()
    assert texts(body) == ["one", "expert_failed"]
    assert [name for name, _ in gateway.seen] == ["large"]


async def test_the_clients_own_mistake_is_passed_on_and_not_retried(gateway: Gateway) -> None:
    await gateway.add("large", answers("too long", 400))
    await gateway.add("spare", answers("spare"))
    async with gateway.post(model="large") as response:
        assert (response.status, (await response.json())["error"]["message"]) == (400, "too long")
    assert [name for name, _ in gateway.seen] == ["large"]


async def test_when_all_fail_the_answer_names_each(gateway: Gateway) -> None:
    await gateway.add_dead("large")
    await gateway.add("spare", answers("broken", 500))
    async with gateway.post(model="large") as response:
        error = (await response.json())["error"]
        assert (response.status, error["code"]) == (502, "expert_failed")
        assert "large on attic" in error["message"]
        assert "spare on attic: HTTP 500: broken" in error["message"]


async def test_no_expert_is_said_at_once_with_when_to_try_again(gateway: Gateway) -> None:
    async with gateway.post(model="auto") as response:
        assert (response.status, response.headers["Retry-After"]) == (503, "5")
        assert (await response.json())["error"]["code"] == "no_expert"


async def metrics_of(gateway: Gateway) -> str:
    async with gateway.http.get(f"{gateway.url}/metrics", headers={"Authorization": f"Bearer {KEY}"}) as response:
        return await response.text()


async def say(gateway: Gateway, state: str, **details: Any) -> None:
    status = ExpertStatus.model_validate({"expert": "large", "node": "attic", "state": state, **details})
    await gateway.registry._on_expert(status, {"node": "attic", "expert": "large"})


@pytest.mark.parametrize("model", ["auto", "large"])
async def test_a_request_waits_for_an_expert_that_is_loading(gateway: Gateway, model: str) -> None:
    await say(gateway, "starting")
    request = asyncio.create_task(_read(gateway, model))
    await asyncio.sleep(0.1)
    assert not request.done()
    await gateway.add("large", answers("large"))
    assert b'"content": "large"' in await request


async def test_a_request_waits_for_an_expert_that_has_just_crashed(gateway: Gateway) -> None:
    await gateway.add_dead("large")
    await say(gateway, "failed", error="it was killed")
    request = asyncio.create_task(_read(gateway))
    await asyncio.sleep(0.1)
    await say(gateway, "starting")
    assert not request.done()
    await gateway.add("large", answers("large"))
    assert b'"content": "large"' in await request


async def test_a_request_that_is_faster_than_the_news_of_a_crash_waits_too(gateway: Gateway) -> None:
    await gateway.add_dead("large")
    request = asyncio.create_task(_read(gateway))
    async with asyncio.timeout(10):
        while 'failovers_total{expert="large"} 1.0' not in await metrics_of(gateway):
            await asyncio.sleep(0.01)
    await say(gateway, "failed", error="it was killed")
    await say(gateway, "starting")
    await gateway.add("large", answers("large"))
    assert b'"content": "large"' in await request


async def test_nobody_waits_for_a_capability_that_no_expert_has(gateway: Gateway) -> None:
    await gateway.add("large", answers("large"))
    async with gateway.post("/v1/embeddings", model="auto") as response:
        assert response.status == 503
        message = (await response.json())["error"]["message"]
    assert message.startswith("No expert with embeddings is ready.")


@pytest.mark.parametrize("ability", ["embeddings", "rerank"])
async def test_vectors_and_ranks_are_asked_of_who_has_them(gateway: Gateway, ability: Capability) -> None:
    await gateway.add("large", answers("large"), capabilities=("chat",))
    await gateway.add("small", answers("small"), capabilities=(ability,))
    async with gateway.post(f"/v1/{ability}", model="auto", query="lamp", documents=["light", "door"]) as response:
        assert response.status == 200, await response.text()
    ((name, body),) = gateway.seen
    assert (name, body["query"], body["documents"]) == ("small", "lamp", ["light", "door"])


async def test_nobody_waits_for_an_expert_that_fails_to_load(gateway: Gateway) -> None:
    await say(gateway, "starting")
    request = asyncio.create_task(_read(gateway))
    await asyncio.sleep(0)
    await say(gateway, "failed", error="no such file")
    assert b"No expert with chat is ready. large on attic failed: no such file" in await request


async def test_loading_for_too_long_is_said(gateway: Gateway) -> None:
    await say(gateway, "starting")
    async with gateway.post(model="auto") as response:
        error = (await response.json())["error"]
    assert (response.status, error["code"]) == (503, "no_expert")
    assert error["message"] == "No expert is ready yet: large takes too long. Try again in a minute."


async def test_when_all_are_busy_the_client_hears_when_to_try_again(gateway: Gateway) -> None:
    await gateway.add("large", answers("", 503))
    async with gateway.post(model="large") as response:
        assert (response.status, response.headers["Retry-After"]) == (503, "5")
        assert (await response.json())["error"]["code"] == "overloaded"


async def test_a_flood_of_announcements_fills_no_memory(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(MAX_EXPERTS + 10):
        status = ExpertStatus(expert=f"e{number}", node="attic", state="starting")
        await gateway.registry._on_expert(status, {"node": "attic", "expert": status.expert})
        await gateway.registry._on_node(Presence(state="offline"), {"node": f"n{number}"})
    assert len(gateway.registry.names) == len(gateway.registry._offline) == MAX_EXPERTS
    assert caplog.text.count("further ones are ignored") == 1


async def test_a_node_that_is_offline_is_not_asked(gateway: Gateway) -> None:
    await gateway.add("large", answers("large"))
    await gateway.registry._on_node(Presence(state="offline"), {"node": "attic"})
    async with gateway.post(model="large") as response:
        assert response.status == 503
    await gateway.registry._on_node(Presence(state="online"), {"node": "attic"})
    async with gateway.post(model="large") as response:
        assert response.status == 200


async def test_a_request_waits_for_a_node_that_was_lost_a_moment_ago(gateway: Gateway) -> None:
    await gateway.add("large", answers("large"))
    await gateway.registry._on_node(Presence(state="offline"), {"node": "attic"})
    request = asyncio.create_task(_read(gateway))
    await asyncio.sleep(0.1)
    assert not request.done()
    await gateway.registry._on_node(Presence(state="online"), {"node": "attic"})
    assert b'"content": "large"' in await request


async def test_a_node_that_was_lost_long_ago_is_not_waited_for() -> None:
    now = 0.0
    registry = ExpertRegistry(health=Health(), balance=Balance(), clock=lambda: now)
    ready = ExpertStatus(expert="large", node="attic", state="ready", url="http://127.0.0.1:9/v1")
    await registry._on_expert(ready, {"node": "attic", "expert": "large"})
    await registry._on_node(Presence(state="offline"), {"node": "attic"})
    assert registry.expected(["auto"]) == ("large",)
    now = RETURN_SECONDS - 1
    await registry._on_node(Presence(state="offline"), {"node": "attic"})
    now = RETURN_SECONDS + 1
    assert registry.expected(["auto"]) == ()


async def test_an_expert_that_was_withdrawn_is_unknown(gateway: Gateway) -> None:
    await gateway.add("large", answers("large"))
    await gateway.registry._on_expert(None, {"node": "attic", "expert": "large"})
    async with gateway.post(model="large") as response:
        assert response.status == 404
        assert "choose one of: auto" in (await response.json())["error"]["message"]


async def test_a_request_with_tools_goes_to_an_expert_that_can_call_them(gateway: Gateway) -> None:
    await gateway.add("another", answers("another"), capabilities=("chat",))
    await gateway.add("talker", answers("talker"), capabilities=("chat", "tools"))
    async with gateway.post(model="auto", tools=[{"type": "function"}]) as response:
        assert response.headers["X-Rouse-Expert"] == "talker"


async def test_a_client_that_leaves_ends_the_work_of_the_expert(gateway: Gateway) -> None:
    left = asyncio.Event()

    async def script(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        try:
            while True:
                await response.write(event("more"))
                await asyncio.sleep(0.01)
        finally:
            left.set()

    await gateway.add("large", script)
    async with gateway.post(model="large", stream=True) as response:
        await response.content.readany()
        response.close()
    async with asyncio.timeout(5):
        await left.wait()


async def test_a_client_that_leaves_before_the_first_token_ends_it_too(gateway: Gateway) -> None:
    started, left = asyncio.Event(), asyncio.Event()

    async def script(_request: web.Request) -> web.StreamResponse:
        started.set()
        try:
            await asyncio.sleep(30)
        finally:
            left.set()
        return web.Response()

    await gateway.add("large", script)
    request = asyncio.create_task(_read(gateway))
    await started.wait()
    request.cancel()
    async with asyncio.timeout(5):
        await left.wait()


async def _read(gateway: Gateway, model: str = "large") -> bytes:
    async with gateway.post(model=model) as response:
        return bytes(await response.read())


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/rerank"])
@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "not valid JSON"),
        (b"[]", "must be a JSON object"),
        (b'{"model": 7}', "'model' must be a string"),
        (b"\xff", "not valid JSON"),
        (b"[" * 100_000, ""),
    ],
)
async def test_bad_bodies_get_openais_error(gateway: Gateway, path: str, body: bytes, said: str) -> None:
    await gateway.add("large", answers("large"))
    async with gateway.http.post(gateway.url + path, data=body, headers={"Authorization": f"Bearer {KEY}"}) as response:
        error = (await response.json())["error"]
        assert response.status in {400, 413}
        assert error["type"] == "invalid_request_error"
        assert said in error["message"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/chat/completions", 405), ("GET", "/nothing", 404), ("POST", "/v1/models", 405)],
)
async def test_wrong_paths_and_methods_get_openais_error(gateway: Gateway, method: str, path: str, status: int) -> None:
    headers = {"Authorization": f"Bearer {KEY}"}
    async with gateway.http.request(method, gateway.url + path, headers=headers) as response:
        assert response.status == status
        assert (await response.json())["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("path", ["/v1/models", "/metrics", "/nothing"])
@pytest.mark.parametrize("key", ["", "Bearer wrong", "Bearer gateway-ke", "Basic x", "Bearer \xfc"])
async def test_without_the_key_nothing_is_told(gateway: Gateway, path: str, key: str) -> None:
    async with gateway.http.get(gateway.url + path, headers={"Authorization": key}) as response:
        assert response.status == 401


async def test_health_needs_no_key_and_tells_only_that(gateway: Gateway) -> None:
    await gateway.add("large", answers("large"))
    async with gateway.http.get(f"{gateway.url}/health") as response:
        assert await response.json() == {"status": "ok", "experts": 1}


async def test_the_models_are_auto_and_what_is_ready(gateway: Gateway) -> None:
    await gateway.add("small", answers("small"))
    headers = {"Authorization": f"Bearer {KEY}"}
    async with gateway.http.get(f"{gateway.url}/v1/models", headers=headers) as response:
        assert [model["id"] for model in (await response.json())["data"]] == ["auto", "small"]


async def test_a_redirect_of_an_expert_is_not_followed(gateway: Gateway) -> None:
    async def script(_request: web.Request) -> web.StreamResponse:
        raise web.HTTPTemporaryRedirect("http://192.0.2.1/")

    await gateway.add("large", script)
    async with gateway.post(model="large") as response:
        assert response.status == 502
