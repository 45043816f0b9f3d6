"""What each field of a request does to what the real model writes, and grammars under the real sampler."""

import json
import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from appliance.experts.chat.formats import FORMATS, CallFormat
from appliance.experts.chat.output import ToolPolicy
from appliance.experts.errors import ExpertError, InvalidRequestError
from appliance.experts.events import ToolCallArguments, ToolCallStart
from appliance.experts.generation import GenerationRequest
from appliance.experts.llama.backend import LlamaBackend
from appliance.experts.sampling import Sampling
from appliance.experts.settings import EngineSettings
from tests.unit.experts.conftest import Client, serving

pytestmark = pytest.mark.model

SETTINGS = EngineSettings(context_tokens=512, slots=4, threads=2, drain_seconds=1)
LISTING = "a b c a b c a b c a b c"
GREEDY: dict[str, Any] = {"temperature": 0}
FREE: dict[str, Any] = {"temperature": 1, "top_k": 0, "top_p": 1, "min_p": 0}


@pytest.fixture
async def client(model: Path) -> AsyncIterator[Client]:
    async with serving(lambda: LlamaBackend(model, SETTINGS), SETTINGS) as running:
        yield running


async def write(client: Client, prompt: str = LISTING, **fields: Any) -> str:
    fields = {"max_tokens": 12, **fields}
    status, body = await client.post("/v1/completions", {"prompt": prompt, **fields})
    assert status == 200, body
    return str(body["choices"][0]["text"])


async def test_the_model_goes_on_with_a_list(client: Client) -> None:
    assert (await write(client, **GREEDY)).startswith(" b c c c")


async def test_greedy_is_the_limit_of_each_filter(client: Client) -> None:
    greedy = await write(client, **GREEDY)
    assert await write(client, **FREE | {"top_k": 1, "seed": 1}) == greedy
    assert await write(client, **FREE | {"top_p": 0, "seed": 2}) == greedy
    assert await write(client, **FREE | {"min_p": 1, "seed": 3}) == greedy
    assert await write(client, **FREE | {"temperature": 5, "seed": 4}) != greedy


async def test_a_seed_repeats_and_another_does_not(client: Client) -> None:
    texts = [await write(client, "Once", seed=seed, **FREE) for seed in (7, 7, 8, -1, (1 << 64) - 1)]
    assert texts[0] == texts[1]
    assert len(set(texts)) >= 4


async def test_n_answers_have_seeds_of_their_own(client: Client) -> None:
    body = {"prompt": "Once", "n": 3, "seed": 7, "max_tokens": 12, **FREE}
    _, answer = await client.post("/v1/completions", body)
    texts = [choice["text"] for choice in answer["choices"]]
    assert len(set(texts)) == 3
    alone = [await write(client, "Once", seed=seed, **FREE) for seed in (7, 8, 9)]
    assert sum(one == other for one, other in zip(texts, alone, strict=True)) >= 2
    assert answer["usage"]["prompt_tokens"] <= 3


@pytest.mark.parametrize("fields", [{"repeat_penalty": 10}, {"frequency_penalty": 2}, {"presence_penalty": 2}])
async def test_penalties_push_away_from_what_was_written(client: Client, fields: dict[str, Any]) -> None:
    plain, pushed = await write(client, **GREEDY, max_tokens=24), await write(client, **GREEDY, max_tokens=24, **fields)
    assert pushed != plain
    assert pushed.count(" c") < plain.count(" c")
    assert await write(client, **GREEDY, max_tokens=24, **fields, repeat_last_n=0) == plain


async def test_a_bias_forces_and_forbids(client: Client) -> None:
    token = client.scheduler.backend.tokenize(" zebra", special=False)[0]
    forced = await write(client, **GREEDY, logit_bias={str(token): 100}, max_tokens=3)
    assert forced == client.scheduler.backend.piece(token).decode() * 3
    first = client.scheduler.backend.tokenize(" b", special=False)[0]
    assert await write(client, **GREEDY, max_tokens=1) == " b"
    assert await write(client, **GREEDY, logit_bias={str(first): -100}, max_tokens=1) != " b"


async def test_a_stop_string_over_several_tokens(client: Client) -> None:
    whole = await write(client, **GREEDY)
    stop = whole[3:7]
    _, body = await client.post("/v1/completions", {"prompt": LISTING, "max_tokens": 12, "stop": stop, **GREEDY})
    assert body["choices"][0] | {"logprobs": None} == {
        "index": 0, "text": whole[: whole.index(stop)], "logprobs": None, "finish_reason": "stop",
    }  # fmt: skip


async def test_logprobs_are_of_the_raw_distribution(client: Client) -> None:
    vocabulary = client.scheduler.info.vocabulary
    body = {"prompt": LISTING, "max_tokens": 4, "logprobs": 5, **GREEDY}
    _, answer = await client.post("/v1/completions", body)
    logprobs = answer["choices"][0]["logprobs"]
    assert "".join(logprobs["tokens"]) == answer["choices"][0]["text"]
    for token, own, top in zip(logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True):
        assert len(top) == 5
        assert max(top.values()) == top[token] == own <= 0
        assert sum(math.exp(value) for value in top.values()) <= 1 + 1e-6
    token = client.scheduler.backend.tokenize(" zebra", special=False)[0]
    biased = {"logit_bias": {str(token): 100}, "temperature": 2, "max_tokens": 1}
    _, answer = await client.post("/v1/completions", body | biased)
    forced = answer["choices"][0]["logprobs"]
    assert forced["top_logprobs"][0] | {forced["tokens"][0]: 0} == logprobs["top_logprobs"][0] | {
        forced["tokens"][0]: 0
    }
    assert forced["token_logprobs"][0] < -5
    backend = client.scheduler.backend

    def total(_: object) -> float:
        sampler = backend.sampler(Sampling())
        own, best = sampler.logprobs(0, 0, vocabulary)
        sampler.close()
        assert dict(best)[0] == pytest.approx(own)
        assert [value for _, value in best] == sorted((value for _, value in best), reverse=True)
        return math.fsum(math.exp(value) for _, value in best)

    assert await client.scheduler.call(total) == pytest.approx(1, abs=1e-5)


async def test_a_chat_with_logprobs_and_a_schema(client: Client) -> None:
    form = {"type": "json_schema", "json_schema": {"schema": {"enum": ["red", "green"]}}}
    status, body = await client.chat("Choose.", response_format=form, logprobs=True, top_logprobs=20, temperature=0)
    assert status == 200
    choice = body["choices"][0]
    entries = choice["logprobs"]["content"]
    assert b"".join(bytes(entry["bytes"]) for entry in entries).decode() == choice["message"]["content"]
    assert all(len(entry["top_logprobs"]) == 20 for entry in entries)


async def test_a_completion_in_json(client: Client) -> None:
    completion = {"prompt": "x", "response_format": {"type": "json_object"}, "max_tokens": 40, "temperature": 0}
    _, body = await client.post("/v1/completions", completion)
    assert body["choices"][0]["text"].startswith("{")


SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"enum": ["Lamp", "Fan"]},
        "on": {"type": "boolean"},
        "levels": {"type": "array", "items": {"type": "integer", "minimum": 0}, "maxItems": 2, "minItems": 1},
        "note": {"type": ["string", "null"], "maxLength": 12},
    },
    "required": ["name", "on", "levels", "note"],
}


@pytest.mark.parametrize("form", FORMATS, ids=[form.name for form in FORMATS])
async def test_each_format_is_written_and_read_under_its_grammar(client: Client, form: CallFormat) -> None:
    scheduler = client.scheduler
    grammar = form.grammar([("turn_on", SCHEMA), ("stop", {})], parallel=False)
    policy = ToolPolicy(form=form, grammar=grammar, forced=True, parallel=False)
    for seed in range(4):
        request = GenerationRequest(
            prompt=scheduler.backend.tokenize("Turn on the lamp. " + form.forcing, special=True),
            max_tokens=400,
            sampling=Sampling(temperature=0.0 if not seed else 1.0, seed=seed),
            tools=policy,
        )
        events, finished = await scheduler.submit(request).finished()
        names = [event.name for event in events if isinstance(event, ToolCallStart)]
        arguments = json.loads("".join(event.text for event in events if isinstance(event, ToolCallArguments)))
        assert finished.reason == "tool_calls"
        if names == ["turn_on"]:
            assert arguments["name"] in ("Lamp", "Fan")
            assert isinstance(arguments["on"], bool)
            assert 1 <= len(arguments["levels"]) <= 2
            assert arguments["note"] is None or isinstance(arguments["note"], str)
        else:
            assert (names, arguments) == (["stop"], {})


async def test_streamed_arguments_of_the_real_model(client: Client) -> None:
    tool = {"type": "function", "function": {"name": "turn_on", "parameters": SCHEMA}}
    body = {
        "messages": [{"role": "user", "content": "Turn on the lamp."}], "tools": [tool], "tool_choice": "required",
        "parallel_tool_calls": False, "stream": True, "temperature": 0, "max_tokens": 120,
    }  # fmt: skip
    async with client.session.post(client.url + "/v1/chat/completions", json=body) as response:
        text = await response.text()
    data = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    pieces = [piece for chunk in data for piece in chunk["choices"][0]["delta"].get("tool_calls", ())]
    assert pieces[0]["function"] == {"name": "turn_on", "arguments": ""}
    assert len(pieces) > 8
    assert set(json.loads("".join(piece["function"]["arguments"] for piece in pieces))) == set(SCHEMA["required"])
    assert data[-1]["choices"][0]["finish_reason"] == "tool_calls"


async def test_a_grammar_that_llama_cpp_does_not_take_frees_the_slot(client: Client) -> None:
    request = GenerationRequest(prompt=[1], max_tokens=4, grammar="root ::= root")
    with pytest.raises(InvalidRequestError):
        await client.scheduler.submit(request).finished()
    assert issubclass(InvalidRequestError, ExpertError)
    await client.idle()
