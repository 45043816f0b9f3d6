import pytest
from hypothesis import given

from appliance.experts.chat.reasoning import Thinking, ThinkSplitter
from tests.unit.experts.test_text import ALPHABET, SIZES, cut


def split(text: str, sizes: list[int], thinking: Thinking = "marked") -> tuple[str, str]:
    splitter = ThinkSplitter(thinking)
    thoughts, answer = "", ""
    for thought, shown in [*(splitter.push(piece) for piece in cut(text, sizes)), splitter.flush()]:
        thoughts += thought.text if thought else ""
        answer += shown
    return thoughts, answer


@given(SIZES)
def test_thoughts_and_answer_are_told_apart_wherever_tokens_end(sizes: list[int]) -> None:
    thoughts, answer = split("\n<think>\nA lamp? </thin\n\n</think>\n\n On it. <think>", sizes)
    assert thoughts == "A lamp? </thin"
    assert answer == "On it. <think>"


@given(ALPHABET, SIZES)
def test_text_without_marks_is_the_answer(text: str, sizes: list[int]) -> None:
    assert split(text, sizes) == ("", text)


@pytest.mark.parametrize(
    ("text", "thinking", "expected"),
    [
        ("Hm.</think>Yes.", "open", ("Hm.", "Yes.")),
        ("Hm.", "open", ("Hm.", "")),
        ("<think>Hm. </thi", "marked", ("Hm. </thi", "")),
        ("<thin", "marked", ("", "<thin")),
        ("<think></think>Yes.", "marked", ("", "Yes.")),
    ],
)
def test_ends(text: str, thinking: Thinking, expected: tuple[str, str]) -> None:
    assert split(text, [], thinking) == expected
