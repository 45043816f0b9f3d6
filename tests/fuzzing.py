"""What is sent to find faults: JSON that is nearly right, and bytes that are nearly JSON; the same in each run."""

import json
import random
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

SCALARS = (
    None, True, False, 0, 1, -1, 2**63, -(2**70), 10**400, 1.5, -0.0, 1e308, float("nan"), float("inf"), "", "x",
    "\ud800", "\x00", "🏠" * 20, "<tool_call>", "<|im_end|>", "#/", "{}", [], {}, [[]], [{}], {"$ref": "#"},
    {"type": "object"},
)  # fmt: skip

JSON: SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
)

RARE_BYTES = (
    b"", b"null", b"\xff\xfe", b"\xef\xbb\xbf{}", b"[" * 100_000, b'{"a":' * 50_000, b'{"id":' + b"9" * 10_000 + b"}",
    b'{"id": 1e999}', b'{"id": NaN}', b'"\\ud800"', b"{} {}", "{}".encode("utf-16"), b"\x00" * 64,
)  # fmt: skip


def drawn[T](strategy: SearchStrategy[T], count: int, *, number: int = 20261123) -> list[T]:
    """Draw examples outside of a hypothesis test, whose functions can't be coroutines; `number` is the seed."""
    found: list[T] = []

    @seed(number)
    @settings(
        max_examples=count, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=HealthCheck
    )
    @given(strategy)
    def collect(example: T) -> None:
        found.append(example)

    while len(found) < count:
        before = len(found)
        collect()
        if len(found) == before:
            break
    return found[:count]


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


def damaged(body: bytes, chance: random.Random) -> bytes:
    """Return the bytes cut, with others put in, or with another kind of quotes."""
    at = chance.randrange(len(body) + 1)
    return chance.choice((body[:at], body[:at] + chance.randbytes(3) + body[at:], body.replace(b'"', b"'")))


def bodies(good: tuple[Any, ...]) -> SearchStrategy[bytes]:
    """Return mutations of good JSON, random JSON, and bytes that are none."""

    def mutate(value: Any, chance: random.Random) -> bytes:
        body = json.dumps(mutated(value, chance)).encode()
        return damaged(body, chance) if chance.random() < 0.3 else body

    # The seed is drawn as a number, which costs hypothesis less than drawing each choice.
    chances = st.integers(0, 2**64).map(random.Random)
    nearly = st.builds(mutate, st.sampled_from(good), chances)
    return st.one_of(
        nearly, nearly, nearly, JSON.map(lambda value: json.dumps(value).encode()), st.binary(max_size=64),
        st.sampled_from(RARE_BYTES),
    )  # fmt: skip
