"""With real weights.

The same prompt alone and in a batch may differ in a logit's last bits, because the
matrix kernels differ by batch width; the prompts here were chosen where the best token leads clearly.
"""

import asyncio
import contextlib
import json
import os
import random
import re
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from appliance.experts.engine.costs import StepCosts
from appliance.experts.engine.scheduler import Scheduler
from appliance.experts.errors import ModelLoadError
from appliance.experts.llama.backend import LlamaBackend
from appliance.experts.settings import EngineSettings
from tests.fuzzing import mutated
from tests.unit.experts.conftest import Client, serving

pytestmark = pytest.mark.model

SETTINGS = EngineSettings(context_tokens=512, slots=4, threads=2, embeddings=True, drain_seconds=1)
QUESTIONS = (
    "Count from one to ten.",
    "Write the alphabet.",
    "What are the days of the week?",
    "Repeat after me: the quick brown fox jumps over the lazy dog.",
)


@pytest.fixture
async def client(model: Path) -> AsyncIterator[Client]:
    async with serving(lambda: LlamaBackend(model, SETTINGS), SETTINGS) as running:
        yield running


async def greedy(client: Client, text: str, **fields: Any) -> str:
    status, body = await client.chat(text, temperature=0, max_tokens=16, **fields)
    assert status == 200, body
    return str(body["choices"][0]["message"]["content"])


async def test_together_is_as_alone(client: Client) -> None:
    alone = [await greedy(client, question) for question in QUESTIONS]
    together = await asyncio.gather(*(greedy(client, question) for question in QUESTIONS))
    assert all(alone)
    assert sum(one == other for one, other in zip(alone, together, strict=True)) >= 3


async def test_a_known_prefix_gives_the_same_answer(client: Client) -> None:
    first = await greedy(client, QUESTIONS[0])
    status, body = await client.chat(QUESTIONS[0], temperature=0, max_tokens=16)
    assert status == 200
    assert body["usage"]["prompt_tokens_details"]["cached_tokens"] == body["usage"]["prompt_tokens"] - 1
    assert body["choices"][0]["message"]["content"] == first


async def test_seeds_and_biases(client: Client) -> None:
    answers = [
        (await client.chat("Tell me a story.", seed=seed, temperature=1.5, max_tokens=12))[1]["choices"]
        for seed in (1, 1, 2)
    ]
    assert answers[0] == answers[1] != answers[2]
    token = client.scheduler.backend.tokenize("zebra", special=False)[0]
    text = await greedy(client, "Hello", logit_bias={str(token): 100})
    assert text.count(client.scheduler.backend.piece(token).decode()) > 5


async def test_drafts_change_no_answer(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = "Repeat this list three times: red, green, blue, red, green, blue, red, green, blue."
    answers = []
    for pays in (False, True):
        monkeypatch.setattr(StepCosts, "draft_tokens", lambda *_, pays=pays: 4 * pays)
        async with serving(lambda: LlamaBackend(model, SETTINGS), SETTINGS) as client:
            _, body = await client.chat(prompt, temperature=0, max_tokens=48)
            async with client.session.get(client.url + "/metrics") as response:
                metrics = await response.text()
        answers.append(body["choices"][0]["message"]["content"])
        (accepted,) = re.findall(r"rouse_expert_drafted_tokens_accepted_total\S+ (\S+)", metrics)
        assert (float(accepted) > 0) == pays
    assert answers[0] == answers[1]


HOUSE = "You look after a house. " + " ".join(f"Lamp {number} is in room {number * 7 % 13}." for number in range(60))


async def test_a_frequent_prefix_outlives_the_process(model: Path, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"context_tokens": 2048, "prefix_folder": tmp_path / "prefixes"})

    async def ask(client: Client, question: str) -> tuple[dict[str, float], int]:
        messages = [{"role": "system", "content": HOUSE}, {"role": "user", "content": question}]
        body = {"messages": messages, "temperature": 0, "max_tokens": 1, "logprobs": True, "top_logprobs": 8}
        status, answer = await client.post("/v1/chat/completions", body)
        assert status == 200
        (token,) = answer["choices"][0]["logprobs"]["content"]
        return {near["token"]: near["logprob"] for near in token["top_logprobs"]}, answer["timings"]["cache_n"]

    async with serving(lambda: LlamaBackend(model, settings), settings) as client:
        answers = [await ask(client, question) for question in QUESTIONS]
    assert answers[0][1] == 0
    shared = answers[1][1]
    assert shared > 500
    assert len(list((tmp_path / "prefixes").glob("*.prefix"))) == 1

    async with serving(lambda: LlamaBackend(model, settings), settings) as client:
        again = [await ask(client, question) for question in QUESTIONS]
    assert all(known >= shared for _, known in again)
    # llama.cpp's flash attention moves a logprob by up to 0.34 with the size of the chunks (measured on zen4).
    for (now, _), (before, _) in zip(again, answers, strict=True):
        likely = now.keys() & before.keys()
        assert len(likely) > 4
        assert {token: now[token] for token in likely} == pytest.approx({t: before[t] for t in likely}, abs=0.5)


def tool(name: str, description: str) -> dict[str, Any]:
    names = ["Kitchen Light", "Bedroom Lamp", "Porch Light"]
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "enum": names}, "area": {"type": "string"}},
        "required": ["name"],
    }
    function = {"name": name, "description": description, "parameters": schema}
    return {"type": "function", "function": function}


def called(name: str, device: str) -> dict[str, Any]:
    function = {"name": name, "arguments": json.dumps({"name": device})}
    return {"role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": function}]}


TOOLS = [tool("HassTurnOn", "Turns on a device"), tool("HassTurnOff", "Turns off a device")]
EXAMPLES = [
    {"role": "system", "content": "You are the voice of a home. To control a device, call a tool."},
    {"role": "user", "content": "Turn on the attic lamp"},
    called("HassTurnOn", "Attic Lamp"),
    {"role": "user", "content": "Why is grass green?"},
    {"role": "assistant", "content": "Grass is green because its leaves contain chlorophyll."},
    {"role": "user", "content": "Please switch off the heater"},
    called("HassTurnOff", "Heater"),
    {"role": "user", "content": "Who wrote Hamlet?"},
    {"role": "assistant", "content": "William Shakespeare wrote Hamlet."},
]


async def ask(client: Client, text: str, **fields: Any) -> dict[str, Any]:
    messages = [*EXAMPLES, {"role": "user", "content": text}]
    body = {"messages": messages, "tools": TOOLS, "temperature": 0, "max_tokens": 80, **fields}
    status, answer = await client.post("/v1/chat/completions", body)
    assert status == 200, answer
    choice: dict[str, Any] = answer["choices"][0]
    return choice


async def test_the_right_tool_is_called_with_valid_arguments(client: Client) -> None:
    for text, name, device in (
        ("Turn on the kitchen light", "HassTurnOn", "Kitchen Light"),
        ("Turn off the bedroom lamp", "HassTurnOff", "Bedroom Lamp"),
    ):
        choice = await ask(client, text)
        assert choice["finish_reason"] == "tool_calls"
        call = choice["message"]["tool_calls"][0]["function"]
        assert call["name"] == name
        assert json.loads(call["arguments"])["name"] == device
    choice = await ask(client, "Why is the sky blue?")
    assert choice["finish_reason"] == "stop"
    assert "tool_call" not in choice["message"]["content"]


async def test_a_tool_can_be_forced_at_any_temperature(client: Client) -> None:
    for seed in range(6):
        choice = await ask(client, "hello", tool_choice="required", temperature=3, top_k=0, top_p=1, min_p=0, seed=seed)
        if choice["finish_reason"] == "length":
            continue
        for call in choice["message"]["tool_calls"]:
            arguments = json.loads(call["function"]["arguments"])
            assert call["function"]["name"] in ("HassTurnOn", "HassTurnOff")
            assert arguments["name"] in ("Kitchen Light", "Bedroom Lamp", "Porch Light")


async def test_answers_follow_a_schema(client: Client) -> None:
    schema = {
        "type": "object",
        "properties": {"color": {"enum": ["red", "green"]}, "count": {"type": "integer", "minimum": 0}},
        "required": ["color", "count"],
    }
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    for seed in range(4):
        _, body = await client.chat("A colour and a number, as JSON", response_format=form, seed=seed, temperature=2)
        value = json.loads(body["choices"][0]["message"]["content"])
        assert value["color"] in ("red", "green")
        assert value["count"] >= 0


async def test_a_dropped_stream_frees_its_cells(client: Client) -> None:
    body = {"messages": [{"role": "user", "content": "Tell me a long story."}], "stream": True}
    response = await client.session.post(client.url + "/v1/chat/completions", json=body)
    await response.content.readline()
    assert client.scheduler.status().active == 1
    response.close()
    await client.idle()
    async with asyncio.timeout(5):
        while client.scheduler.status().kv_used:
            await asyncio.sleep(0.01)


async def test_context_overflow_and_embeddings(client: Client) -> None:
    status, body = await client.chat("word " * 600)
    assert (status, body["error"]["code"]) == (400, "context_length_exceeded")
    status, body = await client.post("/v1/embeddings", {"input": ["a lamp", "the lamp", "quantum physics"]})
    assert status == 200
    vectors = [item["embedding"] for item in body["data"]]
    lamps, other = (sum(x * y for x, y in zip(vectors[0], vector, strict=True)) for vector in vectors[1:])
    assert lamps > other
    assert abs(sum(x * x for x in vectors[0]) - 1) < 1e-3


@pytest.mark.parametrize("damage", ["absent", "text", "truncated", "header"])
async def test_a_file_that_cannot_be_loaded_gives_one_line(model: Path, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "model.gguf"
    data = model.read_bytes()[: 8 << 20]
    if damage != "absent":
        path.write_bytes({"text": b"hello", "truncated": data, "header": data[:200]}[damage])
    with pytest.raises(ModelLoadError, match=r"model\.gguf: .") as failure:
        LlamaBackend(path, SETTINGS)
    assert "\n" not in str(failure.value)


@contextlib.asynccontextmanager
async def launched(model: Path, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.benchmarks.launch_expert", str(model), *arguments,
        stdout=PIPE, stderr=PIPE, env=os.environ | {"EXPERT_KEY": "k"},
    )  # fmt: skip
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def test_a_process_without_a_model_exits_with_one_line(tmp_path: Path) -> None:
    async with launched(tmp_path / "none.gguf") as process:
        _, errors = await process.communicate()
        assert process.returncode == 1
        assert errors.decode().strip().splitlines() == [f"error: {tmp_path}/none.gguf: No such file or directory"]


HOSTILE: tuple[Any, ...] = (
    {"$ref": "#"},
    {"$ref": "https://example.org/x"},
    {"anyOf": [{"$ref": "#"}]},
    {"type": "string", "pattern": "^(((($"},
    {"type": "string", "pattern": "^(a*)*$"},
    {"type": "string", "minLength": 10**9},
    {"type": "array", "items": {}, "maxItems": 10**9},
    {"type": "array", "minItems": 900, "items": {"type": "array", "minItems": 900, "items": {}}},
    {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(1500)}},
    {"enum": ["x" * 100_000]},
    {"enum": ['"\\\n\x00]{}|', "\u2028", "é", 1e300, None, {"a": [1]}]},
    {"type": "object", "properties": {'"\\': {"const": '"\\'}, "": {}}},
    {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
    {
        "$defs": {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(200)},
        "$ref": "#/$defs/d0",
    },
    {"allOf": [{"$ref": "#"}]},
    {"type": []},
    {"type": "null", "enum": []},
)


def nested(depth: int) -> Any:
    schema: Any = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    return schema


async def test_hostile_schemas_and_samplers_do_not_end_the_process(model: Path) -> None:
    chance = random.Random(3)
    good = {
        "type": "object",
        "properties": {
            "a": {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "array", "items": {"enum": ["x", 1]}}]},
            "b": {"$ref": "#/$defs/c"},
            "d": {"type": "string", "maxLength": 3, "minLength": 1},
        },
        "required": ["b"],
        "additionalProperties": {"type": ["string", "null"]},
        "$defs": {"c": {"type": "object", "properties": {"c": {"$ref": "#/$defs/c"}}}},
    }
    schemas = [*HOSTILE, nested(20), nested(90), *(mutated(good, chance, 0.06) for _ in range(60))]
    settings = SETTINGS.model_dump_json(exclude={"max_body_bytes"})
    async with launched(model, "--settings", settings) as process:
        assert process.stdout is not None
        url = (await process.stdout.readline()).decode().strip()
        async with aiohttp.ClientSession(headers={"Authorization": "Bearer k"}) as session:

            async def send(number: int, schema: Any) -> int:
                sampling = chance.choice(
                    ({"temperature": 0}, {"temperature": 5, "top_k": 0, "top_p": 1, "min_p": 0}, {"top_p": 0})
                )
                body: dict[str, Any] = {"messages": [{"role": "user", "content": "go"}], "max_tokens": 12}
                body |= sampling | {"repeat_penalty": chance.choice((1, 0.01, 10)), "seed": number}
                if number % 2:
                    form = {"type": "json_schema", "json_schema": {"schema": schema}}
                    body["response_format"] = form
                else:
                    function = {"name": "f", "parameters": schema}
                    body |= {"tools": [{"type": "function", "function": function}], "tool_choice": "required"}
                async with session.post(f"{url}/v1/chat/completions", json=body) as response:
                    await response.read()
                    return response.status

            for start in range(0, len(schemas), 4):
                batch = [
                    send(number, schema)
                    for offset, schema in enumerate(schemas[start : start + 4])
                    for number in (2 * (start + offset), 2 * (start + offset) + 1)
                ]
                assert set(await asyncio.gather(*batch)) <= {200, 400}, schemas[start : start + 4]
                assert process.returncode is None
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 20) == 0


async def test_scheduler_reports_the_models_own_limit(model: Path) -> None:
    settings = SETTINGS.model_copy(update={"context_tokens": 1 << 20, "kv_tokens": 512})
    async with serving(lambda: LlamaBackend(model, settings), settings) as client:
        assert isinstance(client.scheduler, Scheduler)
        assert client.scheduler.context_tokens == 8192
