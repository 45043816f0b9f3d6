"""What a gateway does with experts on machines that sleep, over real sockets; what wakes them is played."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from appliance.bus.messages import ExpertStatus, Presence
from appliance.bus.power_messages import NodePower
from appliance.routing.decision import Decision
from appliance.settings.model import AgentSettings
from tests.unit.gateway.conftest import DONE, KEY, Gateway, Start, answers, event, says, streams, text_of, texts

HEADERS = {"Authorization": f"Bearer {KEY}"}


@dataclass
class Woken:
    ok: bool
    detail: str = ""


@dataclass
class PlayedWaker:
    """Wakes a node by having it say so, or does not."""

    gateway: Gateway | None = None
    works: bool = True
    after: float = 0.0
    forbidden: set[str] = field(default_factory=set)
    waited: list[tuple[str, str]] = field(default_factory=list)
    begun: list[tuple[str, str]] = field(default_factory=list)

    def can_wake(self, node: str) -> bool:
        return node not in self.forbidden

    async def wake(self, node: str, reason: str) -> Woken:
        self.waited.append((node, reason))
        await asyncio.sleep(self.after)
        if not self.works:
            return Woken(ok=False, detail=f"{node} does not wake: not back within 3 s of 4 magic packets.")
        assert self.gateway is not None
        await awake(self.gateway, node)
        return Woken(ok=True)

    def wake_soon(self, node: str, reason: str) -> bool:
        self.begun.append((node, reason))
        return self.works


async def power(gateway: Gateway, node: str, state: Any) -> None:
    await gateway.registry._on_power(NodePower(state=state, since=1), {"node": node})


async def asleep(gateway: Gateway, node: str, state: str = "asleep") -> None:
    await power(gateway, node, state)
    await gateway.registry._on_node(Presence(state="offline"), {"node": node})


async def awake(gateway: Gateway, node: str) -> None:
    await gateway.registry._on_node(Presence(state="online"), {"node": node})
    await power(gateway, node, "awake")


@pytest.fixture
def waker() -> PlayedWaker:
    return PlayedWaker()


async def house(start: Start, waker: PlayedWaker, **more: Any) -> Gateway:
    """A large expert that sleeps in the cellar and a small one that is awake."""
    gateway = await start(waker=waker, **more)
    waker.gateway = gateway
    await gateway.add("large", answers("large"), node="cellar")
    await gateway.add("small", answers("small"))
    await asleep(gateway, "cellar")
    return gateway


async def test_who_names_an_expert_that_sleeps_has_it_woken(start: Start, waker: PlayedWaker) -> None:
    gateway = await house(start, waker, always_on="small")
    async with gateway.post(model="large") as response:
        assert await text_of(response) == "large"
        told = (await response.json())["rouse"]
        assert response.headers["X-Rouse-Woken"] == f"{told['woken']['seconds']:.1f}"
    assert told["woken"]["node"] == "cellar"
    assert "waking" not in told
    assert waker.waited == [("cellar", "a request for large")]
    assert waker.begun == []
    async with gateway.post(model="large") as response:
        assert "woken" not in (await response.json())["rouse"]


async def test_an_agent_lets_others_answer_while_its_expert_wakes(start: Start, waker: PlayedWaker) -> None:
    gateway = await house(start, waker, agents={"home": AgentSettings(expert="large")}, always_on="small")
    async with gateway.post(model="agent/home") as response:
        assert await text_of(response) == "small"
        told = (await response.json())["rouse"]
    assert told["waking"] == "cellar"
    assert told["reason"] == "It answers while large wakes up on cellar. It is the one that is always on."
    assert waker.begun == [("cellar", "a request for large, which others answer meanwhile")]
    assert waker.waited == []


@pytest.mark.parametrize("where", ["agent", "gateway"])
async def test_an_agent_may_wait_instead(start: Start, waker: PlayedWaker, where: str) -> None:
    agent = AgentSettings(expert="large", while_asleep="wait" if where == "agent" else None)
    more = {"while_asleep": "wait"} if where == "gateway" else {}
    gateway = await house(start, waker, agents={"home": agent}, always_on="small", **more)
    async with gateway.post(model="agent/home") as response:
        assert await text_of(response) == "large"


async def test_an_equal_expert_that_is_awake_comes_first(start: Start, waker: PlayedWaker) -> None:
    gateway = await start(waker=waker, while_asleep="wait")
    await gateway.add("large", answers("cellar"), node="cellar")
    await gateway.add("large", answers("attic"), node="attic")
    await asleep(gateway, "cellar")
    async with gateway.post(model="large") as response:
        assert await text_of(response) == "attic"
    async with gateway.post() as response:
        assert await text_of(response) == "attic"
    assert waker.waited == waker.begun == []


async def test_when_nobody_is_awake_a_request_waits(start: Start, waker: PlayedWaker) -> None:
    gateway = await start(waker=waker)
    waker.gateway = gateway
    await gateway.add("large", answers("large"), node="cellar")
    await asleep(gateway, "cellar", "off")
    async with gateway.post() as response:
        assert await text_of(response) == "large"


async def test_what_the_router_wants_is_woken_while_another_answers(start: Start, waker: PlayedWaker) -> None:
    class Chooser:
        def choose(self, text: str, experts: Any) -> Decision:
            assert (text, sorted(experts)) == ("2 + 2?", ["large", "small"])
            return Decision(experts=("large", "small"), router="knn-1", reason="It is about maths.")

    wanted: list[str] = []
    gateway = await house(start, waker, router=Chooser(), wanted=wanted.append)
    async with gateway.post(messages=[{"role": "user", "content": "2 + 2?"}]) as response:
        assert await text_of(response) == "small"
    assert waker.begun
    assert wanted == ["large"]


async def test_somebody_elses_server_is_no_stand_in(start: Start, waker: PlayedWaker) -> None:
    gateway = await start(
        waker=waker,
        agents={"home": AgentSettings(expert="large")},
        externals={"workshop": {"url": "http://127.0.0.1:9/v1"}},
    )
    waker.gateway = gateway
    await gateway.add("large", answers("large"), node="cellar")
    await asleep(gateway, "cellar")
    async with gateway.post(model="agent/home") as response:
        assert await text_of(response) == "large"
        assert [one["expert"] for one in (await response.json())["rouse"]["attempts"]] == ["large"]


async def test_a_machine_that_does_not_wake_is_one_clear_error(start: Start, waker: PlayedWaker) -> None:
    waker.works = False
    gateway = await start(waker=waker)
    await gateway.add("large", answers("large"), node="cellar")
    await asleep(gateway, "cellar")
    async with gateway.post(model="large") as response:
        assert response.status == 503
        assert (await response.json())["error"] == {
            "message": "No expert can answer: Cellar does not wake: not back within 3 s of 4 magic packets.",
            "type": "server_error",
            "param": None,
            "code": "no_expert",
        }
        assert response.headers["Retry-After"]


async def test_when_it_does_not_wake_the_next_is_asked(start: Start, waker: PlayedWaker) -> None:
    waker.works = False
    gateway = await house(start, waker, fallbacks=["small"])
    async with gateway.post(model="large") as response:
        assert await text_of(response) == "small"
        attempts = (await response.json())["rouse"]["attempts"]
    assert [(one["expert"], one["outcome"]) for one in attempts] == [
        ("large", "cellar does not wake: not back within 3 s of 4 magic packets."),
        ("small", "answered"),
    ]


async def test_a_node_that_is_about_to_sleep_is_sent_nothing(start: Start, waker: PlayedWaker) -> None:
    gateway = await house(start, waker)
    await awake(gateway, "cellar")
    await power(gateway, "cellar", "going_to_sleep")
    async with gateway.post(model="large") as response:
        assert await text_of(response) == "large"
    assert waker.waited == [("cellar", "a request for large")]


async def test_an_expert_that_starts_after_its_machine_was_off_is_waited_for(start: Start, waker: PlayedWaker) -> None:
    gateway = await house(start, waker)
    url = str(gateway.registry.asleep[0].url)

    class Booting(PlayedWaker):
        async def wake(self, node: str, reason: str) -> Woken:
            starting = ExpertStatus(expert="large", node="cellar", state="starting")
            await gateway.registry._on_expert(starting, {"node": "cellar", "expert": "large"})
            asyncio.get_running_loop().call_later(
                0.2, lambda: asyncio.ensure_future(gateway.announce("large", url, node="cellar"))
            )
            return await super().wake(node, reason)

    waker.wake = Booting(gateway=gateway).wake  # type: ignore[method-assign]
    async with gateway.post(model="large") as response:
        assert await text_of(response) == "large"
        assert (await response.json())["rouse"]["woken"]["seconds"] >= 0.2


async def test_an_expert_that_fails_to_start_then_is_said_to_have(start: Start, waker: PlayedWaker) -> None:
    gateway = await house(start, waker)

    class Broken(PlayedWaker):
        async def wake(self, node: str, reason: str) -> Woken:
            failed = ExpertStatus(expert="large", node="cellar", state="failed", error="no such file")
            woken = await super().wake(node, reason)
            gateway.registry._crashed.clear()
            gateway.registry._experts["cellar", "large"] = failed
            gateway.registry._announce_change()
            return woken

    waker.wake = Broken(gateway=gateway).wake  # type: ignore[method-assign]
    async with gateway.post(model="large") as response:
        assert await text_of(response) == "small"
        attempt = (await response.json())["rouse"]["attempts"][0]
    assert attempt["outcome"] == "cellar is awake, but large does not start there"


async def test_a_node_that_is_to_stay_off_is_left_alone_and_the_error_says_so(start: Start, waker: PlayedWaker) -> None:
    waker.forbidden.add("cellar")
    gateway = await start(waker=waker)
    await gateway.add("large", answers("large"), node="cellar")
    await asleep(gateway, "cellar")
    async with gateway.post(model="large") as response:
        assert response.status == 503
        message = (await response.json())["error"]["message"]
    assert message == "No expert with chat is ready. large is on cellar, which sleeps and is not to be woken."
    assert waker.waited == []


async def test_without_a_waker_what_sleeps_is_gone(start: Start) -> None:
    gateway = await start()
    await gateway.add("large", answers("large"), node="cellar")
    await asleep(gateway, "cellar")
    async with gateway.post(model="large") as response:
        assert response.status == 503


async def test_those_that_sleep_are_listed(start: Start, waker: PlayedWaker) -> None:
    gateway = await house(start, waker)
    async with gateway.http.get(f"{gateway.url}/v1/models", headers=HEADERS) as response:
        assert {"large", "small"} <= {one["id"] for one in (await response.json())["data"]}
    async with gateway.http.get(f"{gateway.url}/health", headers=HEADERS) as response:
        assert (await response.json())["asleep"] == [{"expert": "large", "node": "cellar"}]


async def test_many_requests_count_as_many_and_each_is_told(start: Start, waker: PlayedWaker) -> None:
    waker.after = 0.05
    gateway = await house(start, waker)

    async def ask() -> str:
        async with gateway.post(model="large") as response:
            return await text_of(response)

    assert await asyncio.gather(*(ask() for _ in range(20))) == ["large"] * 20
    async with gateway.http.get(f"{gateway.url}/metrics", headers=HEADERS) as response:
        metrics = await response.text()
    assert 'rouse_gateway_wakes_total{expert="large",outcome="woken"} 20.0' in metrics
    assert 'rouse_gateway_wake_seconds_count{expert="large"} 20.0' in metrics
    assert "rouse_gateway_rousing_requests 0.0" in metrics


async def test_a_stream_that_waits_is_kept_alive_where_the_settings_say_so(start: Start, waker: PlayedWaker) -> None:
    waker.after = 0.5
    gateway = await start(waker=waker, keep_alive_after=0.1)
    waker.gateway = gateway
    await gateway.add("large", streams(event("hel"), event("lo"), DONE), node="cellar")
    await asleep(gateway, "cellar")
    async with gateway.post(model="large", stream=True) as response:
        assert response.status == 200
        assert await response.content.readline() == b": please wait\n"
        body = await response.read()
    assert texts(body) == ["hel", "lo"]
    assert b'"woken":{"node":"cellar"' in body


async def test_a_failure_after_a_comment_is_an_error_event(start: Start, waker: PlayedWaker) -> None:
    waker.after, waker.works = 0.5, False
    gateway = await start(waker=waker, keep_alive_after=0.1)
    await gateway.add("large", answers("large"), node="cellar")
    await asleep(gateway, "cellar")
    async with gateway.post(model="large", stream=True) as response:
        assert response.status == 200
        assert texts(await response.read()) == ["no_expert"]


async def test_a_refusal_of_the_request_after_a_comment_is_an_event_too(start: Start, waker: PlayedWaker) -> None:
    waker.after = 0.5
    gateway = await start(waker=waker, keep_alive_after=0.1)
    waker.gateway = gateway
    refusal = says('{"error": {"message": "too\\nlong", "code": "context_length_exceeded"}}', status=400)
    await gateway.add("large", refusal, node="cellar")
    await asleep(gateway, "cellar")
    async with gateway.post(model="large", stream=True) as response:
        assert texts(await response.read()) == ["context_length_exceeded"]


async def test_without_that_setting_a_failure_keeps_its_status(start: Start, waker: PlayedWaker) -> None:
    waker.after, waker.works = 0.3, False
    gateway = await start(waker=waker)
    await gateway.add("large", answers("large"), node="cellar")
    await asleep(gateway, "cellar")
    async with gateway.post(model="large", stream=True) as response:
        assert response.status == 503


async def test_a_client_that_leaves_while_it_waits_leaves_nothing_behind(start: Start, waker: PlayedWaker) -> None:
    waker.after = 30
    gateway = await start(waker=waker, keep_alive_after=0.1)
    await gateway.add("large", answers("large"), node="cellar")
    await asleep(gateway, "cellar")
    response = await gateway.post(model="large", stream=True)
    await response.content.readline()
    response.close()
    for _ in range(500):
        async with gateway.http.get(f"{gateway.url}/metrics", headers=HEADERS) as metrics:
            text = await metrics.text()
        if "rouse_gateway_rousing_requests 0.0" in text and "rouse_gateway_active_requests 0.0" in text:
            return
        await asyncio.sleep(0.02)
    pytest.fail(text)
