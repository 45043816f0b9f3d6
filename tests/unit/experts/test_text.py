from hypothesis import given
from hypothesis import strategies as st

from appliance.experts.chat.text import StopStrings, Utf8Stream, overlap

ALPHABET = st.text(alphabet="ab<|>", max_size=24)


def cut[T: (bytes, str)](text: T, sizes: list[int]) -> list[T]:
    pieces: list[T] = []
    at = 0
    for size in sizes:
        pieces.append(text[at : at + size])
        at += size
    pieces.append(text[at:])
    return pieces


SIZES = st.lists(st.integers(0, 5), max_size=12)


@given(st.text(max_size=30), SIZES)
def test_characters_are_whole_and_none_is_lost(text: str, sizes: list[int]) -> None:
    stream = Utf8Stream()
    shown = [stream.push(piece) for piece in cut(text.encode(), sizes)]
    assert "".join(shown) + stream.flush() == text
    assert "\ufffd" in text or not any("\ufffd" in part for part in shown)


@given(st.binary(max_size=30), SIZES)
def test_invalid_bytes_never_raise(data: bytes, sizes: list[int]) -> None:
    stream = Utf8Stream()
    text = "".join(stream.push(piece) for piece in cut(data, sizes)) + stream.flush()
    assert text == data.decode(errors="replace")


@given(ALPHABET, st.lists(st.text(alphabet="ab<|>", min_size=1, max_size=5), max_size=3), SIZES)
def test_stop_strings_cut_wherever_tokens_end(text: str, stops: list[str], sizes: list[int]) -> None:
    matcher = StopStrings(tuple(stops))
    shown = "".join(matcher.push(piece) for piece in cut(text, sizes)) + matcher.flush()
    assert matcher.stopped == any(stop in text for stop in stops)
    assert text.startswith(shown)
    assert not any(stop in shown for stop in stops)
    if not matcher.stopped:
        assert shown == text


def test_overlap_is_the_longest_prefix_at_the_end() -> None:
    assert overlap("say <tool", "<tool_call>") == 5
    assert overlap("say", "<tool_call>") == 0
    assert overlap("aaa", "aab") == 2
