"""How the gateway's stream is read."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from appliance.agents.errors import ModelError
from appliance.agents.model import Finish, ModelClient, Text

type Deltas = list[dict[str, Any]]


def call(index: int, **fields: Any) -> dict[str, Any]:
    return {"tool_calls": [{"index": index, **fields}]}


BEGINNING: Deltas = [
    {"role": "assistant", "content": ""},
    {"reasoning_content": "Hm."},
    {"content": "On it."},
    call(0, id="c1", type="function", function={"name": "turn_on", "arguments": ""}),
    call(0, function={"arguments": '{"name": "La'}),
    call(0, function={"arguments": 'mp", "é": "🏠"}'}),
    call(1, id="c2", type="function", function={"name": "stop", "arguments": ""}),
]


@pytest.fixture
async def read() -> AsyncIterator[Callable[..., Any]]:
    body = b""

    async def answer(request: web.Request) -> web.Response:
        assert (await request.json())["prompt_cache_key"] == "k"
        return web.Response(body=body, content_type="text/event-stream")

    application = web.Application()
    application.router.add_post("/v1/chat/completions", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"

    async def read(deltas: Deltas, reason: str) -> list[Text | Finish]:
        nonlocal body
        choices: list[dict[str, Any]] = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
        choices.append({"index": 0, "delta": {}, "finish_reason": reason})
        lines = [f"data: {json.dumps({'choices': [choice]})}\n\n" for choice in choices]
        body = "".join([*lines, "data: [DONE]\n\n"]).encode()
        async with aiohttp.ClientSession() as http:
            return [
                event
                async for event in ModelClient(http=http, url=url, api_key="k").stream({"model": "m"}, cache_key="k")
            ]

    yield read
    await runner.cleanup()


async def test_the_pieces_of_arguments_are_put_together(read: Callable[..., Any]) -> None:
    *texts, finish = await read([*BEGINNING, call(1, function={"arguments": "{}"})], "tool_calls")
    assert texts == [Text("On it.")]
    assert [(call.id, call.name, call.arguments) for call in finish.tool_calls] == [
        ("c1", "turn_on", {"name": "Lamp", "é": "🏠"}),
        ("c2", "stop", {}),
    ]


async def test_a_call_that_was_cut_is_left_out(read: Callable[..., Any]) -> None:
    *_, finish = await read([*BEGINNING, call(1, function={"arguments": '{"a'})], "length")
    assert [call.name for call in finish.tool_calls] == ["turn_on"]
    assert finish.reason == "length"
    *_, finish = await read(BEGINNING, "length")
    assert [call.name for call in finish.tool_calls] == ["turn_on"]


@pytest.mark.parametrize("arguments", ['{"a', "[" * 200_000], ids=["cut", "deep"])
async def test_arguments_that_are_no_json_are_an_error(read: Callable[..., Any], arguments: str) -> None:
    pieces = [call(1, function={"arguments": arguments[at : at + 10_000]}) for at in range(0, len(arguments), 10_000)]
    with pytest.raises(ModelError, match="no JSON"):
        await read([*BEGINNING, *pieces], "tool_calls")
