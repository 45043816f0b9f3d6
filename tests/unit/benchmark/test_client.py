import asyncio
import dataclasses
import time

import aiohttp
import pytest
from aiohttp import web

from appliance.benchmark.client import UNFINISHED, Outcome, Target, ask, ask_into
from scripts.house.processes import free_port
from tests.unit.benchmark.conftest import DONE, Script, ScriptedServer, event, says, streams, token, tokens, usage

MESSAGES = [{"role": "user", "content": "Hello"}]


async def test_a_good_answer(server: ScriptedServer, http: aiohttp.ClientSession) -> None:
    server.script = tokens(4, pause=0.01, counted=6)
    outcome = await ask(http, dataclasses.replace(server.target, model="small"), MESSAGES, 6)
    assert outcome.error is None
    assert (outcome.events, outcome.tokens, outcome.prompt_tokens, outcome.computed_tokens) == (4, 6, 20, 8)
    assert outcome.first_token is not None
    assert 0 < outcome.first_token < outcome.ended - outcome.started
    assert len(outcome.gaps) == len(outcome.arrivals) - 1
    (body,) = server.asked
    assert (body["max_tokens"], body["stream"], body["model"]) == (6, True, "small")
    assert body["stream_options"] == {"include_usage": True}
    assert server.headers[0]["Authorization"] == "Bearer key"


async def test_without_a_key_and_a_model_none_is_sent(server: ScriptedServer, http: aiohttp.ClientSession) -> None:
    outcome = await ask(http, Target(server.url + "/v1/"), MESSAGES, 3)
    assert (outcome.error, outcome.tokens, outcome.prompt_tokens) == (None, 3, None)
    assert "Authorization" not in server.headers[0]
    assert "model" not in server.asked[0]


@pytest.mark.parametrize(
    ("script", "kind", "detail"),
    [
        (says({"error": {"message": "full"}}, 503), "HTTP 503", "full"),
        (says({}, 302), "HTTP 302", "{}"),
        (streams(token(), then="cut"), "connection lost", ""),
        (streams(token()), "cut short", "before the answer did"),
        (streams(token(), event(error={"message": "died"}), DONE), "error in the stream", "died"),
        (streams(b"<html>\n", b"</html>\n"), "cut short", ""),
        (streams(b"data: <html>\n\n"), "not an event stream", "no JSON"),
        (streams(DONE), "empty answer", "no text"),
        (says({"choices": [{"message": {"content": "whole"}}]}, 200), "cut short", ""),
    ],
)
async def test_every_failure_has_a_kind(
    server: ScriptedServer, http: aiohttp.ClientSession, script: Script, kind: str, detail: str
) -> None:
    server.script = script
    outcome = await ask(http, server.target, MESSAGES, 3)
    assert outcome.error == kind
    assert detail in outcome.detail
    assert outcome.ended >= outcome.started


async def test_a_server_that_hangs(server: ScriptedServer, http: aiohttp.ClientSession) -> None:
    server.script = streams(token(), then="hang")
    outcome = await ask(http, dataclasses.replace(server.target, timeout=0.3), MESSAGES, 3)
    assert (outcome.error, outcome.events) == ("timed out", 1)
    assert "0.3 s" in outcome.detail


@pytest.mark.parametrize("url", [f"http://127.0.0.1:{free_port()}", "http://", "nonsense", "http://[::1"])
async def test_nothing_there(http: aiohttp.ClientSession, url: str) -> None:
    outcome = await ask(http, Target(url), MESSAGES, 3)
    assert outcome.error == "not reachable"
    assert outcome.detail


async def test_what_came_before_it_was_cancelled_is_kept(server: ScriptedServer, http: aiohttp.ClientSession) -> None:
    server.script = streams(token(), token(), then="hang")
    outcome = Outcome(time.perf_counter())
    asking = asyncio.create_task(ask_into(outcome, http, server.target, MESSAGES, 3))
    async with asyncio.timeout(5):
        while outcome.events < 2:
            await asyncio.sleep(0.01)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert (outcome.error, outcome.events) == (UNFINISHED, 2)


@pytest.mark.parametrize("count", [-1, True, "3", 2**40, 1.5, None])
async def test_counts_that_are_none_are_not_believed(
    server: ScriptedServer, http: aiohttp.ClientSession, count: object
) -> None:
    counts = {"prompt_tokens": count, "completion_tokens": count, "prompt_tokens_details": count}
    server.script = streams(token(), token("", "stop"), event(choices=[], usage=counts), DONE)
    outcome = await ask(http, server.target, MESSAGES, 3)
    assert (outcome.error, outcome.tokens, outcome.computed_tokens) == (None, 1, None)


async def test_the_expert_that_the_gateway_chose(server: ScriptedServer, http: aiohttp.ClientSession) -> None:
    async def script(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"X-Rouse-Expert": "small"})
        await response.prepare(request)
        await response.write(token("x", "stop") + usage(1, 1) + DONE)
        return response

    server.script = script
    assert (await ask(http, server.target, MESSAGES, 3)).answered_by == "small"
