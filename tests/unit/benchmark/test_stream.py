import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.benchmark.stream import LONGEST_LINE, AnswerReader, StreamError, error_of
from tests.unit.benchmark.conftest import DONE, event, token, usage

TEXTS = st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=20)


@given(TEXTS, st.integers(0, 2**32))
def test_every_text_counts_once_wherever_the_stream_is_split(texts: list[str], number: int) -> None:
    body = b"".join(map(token, texts)) + usage(7, len(texts)) + DONE
    chance = random.Random(number)
    cuts = sorted(chance.randrange(len(body)) for _ in range(10))
    parts = [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    reader = AnswerReader()
    assert sum(map(reader.feed, parts)) == len(texts)
    reader.end()
    assert reader.usage["completion_tokens"] == len(texts)


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
@pytest.mark.parametrize(
    "delta", [{"content": "x"}, {"reasoning_content": "x"}, {"tool_calls": [{"function": {"arguments": "{"}}]}]
)
def test_what_counts_as_text(separators: tuple[str, str], delta: dict[str, object]) -> None:
    chunk = {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    line = b"data: " + json.dumps(chunk, separators=separators).encode() + b"\n\n"
    reader = AnswerReader()
    assert [reader.feed(line) for _ in range(3)] == [1, 1, 1]


def test_what_does_not_count() -> None:
    reader = AnswerReader()
    opening = event(choices=[{"index": 0, "delta": {"role": "assistant", "content": ""}}])
    named = event(choices=[{"index": 0, "delta": {"tool_calls": [{"function": {"name": "f", "arguments": ""}}]}}])
    assert [reader.feed(part) for part in (opening, named, b": a comment\n\n", b"event: ping\n\n", b"\n")] == [0] * 5


def test_text_that_looks_like_an_end_is_text() -> None:
    reader = AnswerReader()
    assert reader.feed(token('"error": "usage": {"timings": {') + token('"finish_reason":"stop"') + token()) == 3
    assert not reader.ended


def test_a_completion_has_text_too() -> None:
    reader = AnswerReader()
    assert reader.feed(event(choices=[{"index": 0, "text": "x", "finish_reason": "length"}])) == 1
    assert reader.ended


def test_timings_of_llama_server() -> None:
    reader = AnswerReader()
    reader.feed(event(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}], timings={"cache_n": 3}))
    assert reader.timings == {"cache_n": 3}


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"data: {nonsense\n\n", "not an event stream"),
        (b"data: [1]\n\n", "not an event stream"),
        (b"data: " + b"[" * 100_000 + b"\n\n", "not an event stream"),
        (b"x" * (LONGEST_LINE + 1), "not an event stream"),
        (event(error={"message": "The expert\nstopped.", "code": "expert_failed"}), "error in the stream"),
        (event(error="broken"), "error in the stream"),
        (token() + event(error={"message": "late"}), "error in the stream"),
    ],
)
def test_what_is_no_answer(body: bytes, kind: str) -> None:
    with pytest.raises(StreamError) as caught:
        AnswerReader().feed(body)
    assert caught.value.kind == kind
    assert str(caught.value).isprintable()


def test_an_answer_without_end_is_cut_short() -> None:
    reader = AnswerReader()
    reader.feed(token())
    with pytest.raises(StreamError, match="ended before the answer did"):
        reader.end()


@given(st.binary(max_size=300), st.booleans())
def test_whatever_comes_it_ends_with_a_count_or_a_stream_error(body: bytes, prefixed: bool) -> None:  # noqa: FBT001
    reader = AnswerReader()
    try:
        assert reader.feed((b"data: " if prefixed else b"") + body + b"\n") >= 0
    except StreamError as error:
        assert error.kind  # noqa: PT017  # both ways are right


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"error": {"message": "no"}}', "no"),
        (b'{"error": "no"}', "no"),
        (b'{"detail": "no"}', "{'detail': 'no'}"),
        (b"<html>\x1b[31mno</html>", "<html> [31mno</html>"),
        (b"[1]", "[1]"),
        (b"x" * 1000, "x" * 200 + "…"),
    ],
)
def test_what_a_failed_request_says(body: bytes, said: str) -> None:
    assert error_of(body) == said
