"""What is sent to find faults: JSON that is nearly right, and bytes that are nearly JSON; the same in each run."""

import json
import random
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

SCALARS: tuple[Any, ...] = (
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


RATES = (0.003, 0.005, 0.01, 0.015, 0.02, 0.03, 0.06, 0.12)
"""Chances of each part of a good value to be changed."""


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


def mutated(value: Any, chance: random.Random, rate: float) -> Any:
    """Return the value with something in it replaced, removed, repeated or nested; `rate` is each part's chance."""
    if chance.random() < rate:
        return chance.choice(SCALARS)
    if isinstance(value, dict):
        result = {}
        for key, item in value.items():
            if chance.random() < rate / 2:
                continue
            name = key if chance.random() > rate / 4 else str(chance.choice(SCALARS))
            result[name] = mutated(item, chance, rate)
        return result
    if isinstance(value, list):
        items = [mutated(item, chance, rate) for item in value]
        return items * (chance.choice((2, 40)) if chance.random() < rate else 1)
    return value


def damaged(body: bytes, chance: random.Random) -> bytes:
    """Return the bytes cut, with others put in, or with another kind of quotes."""
    at = chance.randrange(len(body) + 1)
    return chance.choice((body[:at], body[:at] + chance.randbytes(3) + body[at:], body.replace(b'"', b"'")))


def bodies(good: tuple[Any, ...]) -> SearchStrategy[bytes]:
    """Return mutations of good JSON, random JSON, and bytes that are none."""

    def mutate(value: Any, rate: float, number: int) -> bytes:
        chance = random.Random(number)
        body = json.dumps(mutated(value, chance, rate)).encode()
        return damaged(body, chance) if chance.random() < 0.2 else body

    # A branch each, for hypothesis takes branches equally often.
    nearly = [
        st.builds(mutate, st.just(value), st.just(rate), st.integers(0, 2**64)) for value in good for rate in RATES
    ]
    rarely = [JSON.map(lambda value: json.dumps(value).encode()), st.binary(max_size=64), st.sampled_from(RARE_BYTES)]
    return st.one_of(*nearly, *rarely)
