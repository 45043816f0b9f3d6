"""A thousand random and mutated bodies: nothing but documented answers, and the next good request is answered."""

import asyncio
import json
import random
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from tests.unit.experts.conftest import Client

PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")
DOCUMENTED = {200, 400, 404, 413, 503}

SCALARS = (
    None, True, False, 0, 1, -1, 2**63, -(2**70), 1.5, -0.0, 1e308, "", "x", "\ud800", "\x00", "🏠" * 20,
    "<tool_call>", "<|im_end|>", "#/", "{}", [], {}, [[]], [{}], {"$ref": "#"}, {"type": "object"},
)  # fmt: skip
GOOD: tuple[dict[str, Any], ...] = (
    {
        "model": "tiny",
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": [{"type": "text", "text": "x"}]},
            {
                "role": "assistant",
                "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
            {"role": "tool", "content": "r", "tool_call_id": "1"},
        ],
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "f",
                    "description": "d",
                    "parameters": {
                        "type": "object",
                        "properties": {"a": {"type": ["string", "null"]}, "b": {"$ref": "#/$defs/c"}},
                        "required": ["a"],
                        "$defs": {"c": {"anyOf": [{"enum": [1, "2"]}, {"type": "array", "items": {}}]}},
                    },
                },
            }
        ],
        "tool_choice": "auto",
        "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "integer"}}},
        "max_tokens": 4,
        "stop": ["a", "b"],
        "logit_bias": {"5": 1.0},
        "stream": False,
        "temperature": 0.5,
        "seed": 3,
    },
    {"prompt": "x", "max_tokens": 3, "stream": True, "top_p": 0.5, "stop": "z"},
    {"input": ["a", "b"], "encoding_format": "float"},
)


def mutated(value: Any, chance: random.Random) -> Any:
    """Return the value with something in it replaced, removed, repeated or nested."""
    if chance.random() < 0.12:
        return chance.choice(SCALARS)
    if isinstance(value, dict):
        result = {}
        for key, item in value.items():
            if chance.random() < 0.06:
                continue
            name = key if chance.random() > 0.03 else str(chance.choice(SCALARS))
            result[name] = mutated(item, chance)
        return result
    if isinstance(value, list):
        items = [mutated(item, chance) for item in value]
        return items * chance.choice((1, 1, 1, 2, 40))
    return value


def bodies(chance: random.Random, count: int) -> list[bytes]:
    """Return JSON that is nearly right, and bytes that are nearly JSON."""
    result: list[bytes] = []
    for _ in range(count):
        body = json.dumps(mutated(chance.choice(GOOD), chance)).encode()
        if chance.random() < 0.3:
            at = chance.randrange(len(body) + 1)
            body = chance.choice(
                (body[:at], body[:at] + chance.randbytes(3) + body[at:], body.replace(b'"', b"'"), b"[" * 5000)
            )
        result.append(body)
    return result


def random_json() -> SearchStrategy[Any]:
    leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    keys = st.sampled_from(["messages", "prompt", "input", "role", "content", "tools", "stop", "type"])
    return st.recursive(leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4))


async def answer(client: Client, path: str, body: bytes) -> None:
    async with client.session.post(client.url + path, data=body) as response:
        text = await response.text()
        assert response.status in DOCUMENTED, (path, body, text)
        if response.status != 200:
            error = json.loads(text)["error"]
            assert error["message"]
            assert set(error) >= {"message", "type", "param", "code"}


async def test_a_thousand_bodies(client: Client) -> None:
    chance = random.Random(20261123)
    everything = bodies(chance, 1000)
    for start in range(0, len(everything), 8):
        batch = everything[start : start + 8]
        await asyncio.gather(*(answer(client, chance.choice(PATHS), body) for body in batch))
        if start % 200 == 0:
            assert (await client.chat("still there"))[1]["choices"][0]["message"]["content"] == "still there"
    await client.idle()
    assert (await client.chat("still there"))[0] == 200


async def test_random_json(client: Client) -> None:
    chance = random.Random(7)
    strategy = random_json()
    for _ in range(60):
        value = _draw(strategy, chance)
        for path in PATHS:
            await answer(client, path, json.dumps(value).encode())
    assert (await client.chat("ok"))[0] == 200


def _draw(strategy: SearchStrategy[Any], chance: random.Random) -> Any:
    """Draw one example outside of a hypothesis test, whose functions can't be coroutines."""
    del chance
    import warnings  # noqa: PLC0415

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return strategy.example()
