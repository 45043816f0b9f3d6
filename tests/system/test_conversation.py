"""The conversation agent on real brokers, in front of a scripted gateway."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from appliance.agents.conversation import ConversationAgent
from appliance.agents.model import ModelClient
from appliance.bus.client import Bus
from appliance.bus.messages import ChatCancel, Tool, ToolCall
from appliance.bus.topics import AGENT_ANNOUNCEMENT, CHAT_CANCEL, REPLY
from appliance.settings.model import AgentSettings
from tests.system.client import House, Inbox
from tests.system.conftest import RunningBroker
from tests.unit.gateway.conftest import serve

pytestmark = pytest.mark.broker

type Script = Callable[[web.StreamResponse, dict[str, Any]], Awaitable[None]]


def chunk(**delta: Any) -> bytes:
    finish = delta.pop("finish_reason", None)
    return b"data: " + json.dumps({"choices": [{"delta": delta, "finish_reason": finish}]}).encode() + b"\n\n"


USAGE = b'data: {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}\n\ndata: [DONE]\n\n'


class ScriptedHouse(House):
    """A house whose gateway notes what it is asked."""

    def __init__(self, bus: Bus, replies: Inbox) -> None:
        super().__init__(bus, replies)
        self.asked: list[dict[str, Any]] = []


@asynccontextmanager
async def house(broker: RunningBroker, script: Script, status: int = 200) -> AsyncIterator[ScriptedHouse]:
    async with AsyncExitStack() as stack:
        home: ScriptedHouse

        async def handle(request: web.Request) -> web.StreamResponse:
            body = await request.json()
            home.asked.append(body)
            if status != 200:
                error = {"message": "a sentence", "code": "no_expert" if status == 503 else "x"}
                return web.json_response({"error": error}, status=status)
            headers = {"Content-Type": "text/event-stream", "X-Rouse-Expert": "small"}
            response = web.StreamResponse(headers=headers)
            await response.prepare(request)
            await script(response, body)
            return response

        app = web.Application()
        app.router.add_post("/v1/chat/completions", handle)
        url = await serve(app, stack)
        http = await stack.enter_async_context(aiohttp.ClientSession())
        model = ModelClient(http=http, url=f"{url}/v1", api_key="key")
        agent_bus, client_bus = broker.bus("agent"), broker.bus("client", "homeassistant")
        agent = ConversationAgent(name="home", settings=AgentSettings(), bus=agent_bus, model=model)
        home = ScriptedHouse(client_bus, Inbox())
        client_bus.subscribe(REPLY, home.inbox, client="house")
        for bus in (client_bus, agent_bus):
            await stack.enter_async_context(bus)
            await bus.wait_connected(5)
        await stack.enter_async_context(agent)
        yield home


async def says_hello(response: web.StreamResponse, _body: dict[str, Any]) -> None:
    for piece in ("Hel", "lo ", "there", "."):
        await response.write(chunk(content=piece))
        await asyncio.sleep(0.06)
    await response.write(chunk(finish_reason="stop") + USAGE)


async def test_an_answer_is_streamed_in_order_and_repeated_whole(broker: RunningBroker) -> None:
    async with house(broker, says_hello) as home:
        await home.ask("request-1")
        final = await home.final("request-1")
        replies = home.replies("request-1")
    assert [reply.seq for reply in replies] == list(range(len(replies)))
    assert "".join(reply.text for reply in replies[:-1]) == "Hello there." == final.text
    assert len(replies) > 2, "it came in pieces"
    assert (final.expert, final.reason, final.prompt_tokens, final.completion_tokens) == ("small", "stop", 7, 3)
    assert 0 <= final.first_token <= final.duration


async def test_who_answered_and_why_is_passed_on(broker: RunningBroker) -> None:
    attempt = {"expert": "large", "node": "cellar", "outcome": "HTTP 500", "seconds": 0.5}
    told = {
        "expert": "small",
        "node": "attic",
        "reason": "It is ready.",
        "router": "settings",
        "attempts": [attempt],
        "woken": {"node": "attic", "seconds": 4.5},
    }
    asked = iter((told, "nonsense"))

    async def says_why(response: web.StreamResponse, body: dict[str, Any]) -> None:
        await response.write(b"data: " + json.dumps({"rouse": next(asked), "choices": []}).encode() + b"\n\n")
        await says_hello(response, body)

    async with house(broker, says_why) as home:
        await home.ask("request-1")
        final = await home.final("request-1")
        assert final.origin is not None
        assert final.origin.model_dump(mode="json", exclude_none=True) == told
        await home.ask("request-2")
        assert (await home.final("request-2")).origin is None


async def test_tool_calls_come_back_whole(broker: RunningBroker) -> None:
    async def calls(response: web.StreamResponse, _body: dict[str, Any]) -> None:
        first = {"index": 0, "id": "call-1", "function": {"name": "HassTurnOn", "arguments": '{"na'}}
        await response.write(chunk(tool_calls=[first]))
        await response.write(chunk(tool_calls=[{"index": 0, "function": {"arguments": 'me": "Lamp"}'}}]))
        await response.write(chunk(finish_reason="tool_calls") + USAGE)

    expected = ToolCall(id="call-1", name="HassTurnOn", arguments={"name": "Lamp"})
    async with house(broker, calls) as home:
        await home.ask("request-1", tools=(Tool(name="HassTurnOn"),))
        final = await home.final("request-1")
        replies = home.replies("request-1")
    assert [reply.kind for reply in replies] == ["tool_call", "finished"]
    assert replies[0].call == expected
    assert final.tool_calls == (expected,)


async def test_a_repeated_request_is_not_executed_twice_but_answered_again(broker: RunningBroker) -> None:
    async with house(broker, says_hello) as home:
        await home.ask("request-1")
        await home.ask("request-1")
        first = await home.final("request-1")
        await home.ask("request-1")
        again = await home.final("request-1", count=2)
        assert len(home.asked) == 1
    assert again == first


async def test_an_expired_request_is_refused_unexecuted(broker: RunningBroker) -> None:
    async with house(broker, says_hello) as home:
        await home.ask("request-1", seconds=-5)
        final = await home.final("request-1")
        assert home.asked == []
    assert (final.kind, final.code) == ("failed", "expired")
    assert "clock" in final.message


async def test_work_stops_at_the_deadline(broker: RunningBroker) -> None:
    left = asyncio.Event()

    async def hangs(response: web.StreamResponse, _body: dict[str, Any]) -> None:
        await response.write(chunk(content="I "))
        try:
            await asyncio.sleep(30)
        finally:
            left.set()

    async with house(broker, hangs) as home:
        await home.ask("request-1", seconds=0.5)
        final = await home.final("request-1", seconds=5)
        async with asyncio.timeout(5):
            await left.wait()
    assert (final.kind, final.code) == ("failed", "expired")


async def test_a_cancelled_request_frees_the_model(broker: RunningBroker) -> None:
    left = asyncio.Event()

    async def hangs(response: web.StreamResponse, _body: dict[str, Any]) -> None:
        await response.write(chunk(content="I "))
        try:
            await asyncio.sleep(30)
        finally:
            left.set()

    async with house(broker, hangs) as home:
        await home.ask("request-1")
        await home.inbox.wait_for(1)
        await home.bus.publish(CHAT_CANCEL, ChatCancel(id="request-1", client="other"), agent="home")
        await home.bus.publish(CHAT_CANCEL, ChatCancel(id="request-1", client="house"), agent="home")
        final = await home.final("request-1")
        async with asyncio.timeout(5):
            await left.wait()
    assert (final.kind, final.code) == ("failed", "cancelled")


@pytest.mark.parametrize(
    ("status", "code"), [(503, "no_expert"), (429, "overloaded"), (400, "invalid_request"), (502, "model_error")]
)
async def test_a_refusal_of_the_gateway_becomes_a_clear_failure(broker: RunningBroker, status: int, code: str) -> None:
    async with house(broker, says_hello, status) as home:
        await home.ask("request-1")
        final = await home.final("request-1")
    assert (final.kind, final.code, final.message) == ("failed", code, "a sentence")


@pytest.mark.parametrize(
    "ending",
    [b"", b"data: {\n\n", b'data: {"error": {"message": "it died"}}\n\n', b"data: [DONE]\n\n"],
    ids=["cut", "broken JSON", "error", "no reason"],
)
async def test_an_answer_that_breaks_off_is_a_failure(broker: RunningBroker, ending: bytes) -> None:
    async def breaks(response: web.StreamResponse, _body: dict[str, Any]) -> None:
        await response.write(chunk(content="I ") + ending)

    async with house(broker, breaks) as home:
        await home.ask("request-1")
        final = await home.final("request-1")
        assert (final.kind, final.code) == ("failed", "model_error")


async def test_a_broker_restart_in_the_middle_of_an_answer_loses_nothing_for_good(broker: RunningBroker) -> None:
    async def slow(response: web.StreamResponse, _body: dict[str, Any]) -> None:
        for number in range(30):
            await response.write(chunk(content=f"{number} "))
            await asyncio.sleep(0.06)
        await response.write(chunk(finish_reason="stop") + USAGE)

    expected = "".join(f"{number} " for number in range(30))
    async with house(broker, slow) as home:
        await home.ask("request-1", seconds=60)
        await home.inbox.wait_for(3)
        await broker.stop()
        await asyncio.sleep(0.3)
        await broker.start()
        await home.bus.wait_connected(20)
        # What Home Assistant does after a reconnection: the same request again.
        await home.ask("request-1", seconds=60)
        final = await home.final("request-1", seconds=40)
        assert len(home.asked) == 1
    assert final.text == expected


async def test_stopping_tells_who_is_waiting(broker: RunningBroker) -> None:
    async def hangs(response: web.StreamResponse, _body: dict[str, Any]) -> None:
        await response.write(chunk(content="I "))
        await asyncio.sleep(30)

    async with AsyncExitStack() as stack:
        watcher = broker.bus("watcher", "homeassistant")
        replies, agents = Inbox(), Inbox()
        watcher.subscribe(REPLY, replies, client="house")
        watcher.subscribe(AGENT_ANNOUNCEMENT, agents)
        await stack.enter_async_context(watcher)
        await watcher.wait_connected(5)
        async with house(broker, hangs) as home:
            await home.ask("request-1")
            await replies.wait_for(1)
        await replies.wait_for(2)
    assert agents.messages[0][0].agent == "home"
    assert (replies.messages[-1][0].kind, replies.messages[-1][0].code) == ("failed", "stopping")
