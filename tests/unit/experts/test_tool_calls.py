import json

from hypothesis import given
from hypothesis import strategies as st

from appliance.experts.chat.output import Output, ToolPolicy
from appliance.experts.chat.tool_calls import ToolCallParser
from appliance.experts.events import TextDelta, ToolCall

CALL = '<tool_call>{"name": "On", "arguments": {"name": "Lamp"}}</tool_call>'


def run(text: str, sizes: list[int], *, inside: bool = False) -> tuple[str, list[ToolCall]]:
    parser = ToolCallParser(inside=inside)
    events, at = [], 0
    for size in [*sizes, len(text)]:
        events += parser.push(text[at : at + size])
        at += size
    events += parser.flush()
    shown = "".join(event.text for event in events if isinstance(event, TextDelta))
    return shown, [event for event in events if isinstance(event, ToolCall)]


SIZES = st.lists(st.integers(0, 6), max_size=40)


@given(SIZES)
def test_calls_and_text_are_told_apart_wherever_tokens_end(sizes: list[int]) -> None:
    shown, calls = run(f"Well.{CALL}\n{CALL}", sizes)
    assert shown == "Well."
    assert [(call.index, call.name, json.loads(call.arguments)) for call in calls] == [
        (0, "On", {"name": "Lamp"}),
        (1, "On", {"name": "Lamp"}),
    ]


@given(st.text(alphabet="<>/_tolcal{}\"' ", max_size=60), SIZES)
def test_the_way_tokens_end_makes_no_difference_and_no_marker_is_shown(text: str, sizes: list[int]) -> None:
    assert run(text, sizes) == run(text, [])
    assert "<tool_call>" not in run(text, sizes)[0]


def test_an_unfinished_or_broken_call_is_dropped() -> None:
    assert run('a<tool_call>{"name": "On"', []) == ("a", [])
    assert run("a<tool_call>nonsense</tool_call>b", []) == ("ab", [])
    assert run('{"name": "On", "arguments": {}}</tool_call>', [], inside=True)[1][0].name == "On"


def test_what_the_opening_token_brought_along_is_taken_back() -> None:
    output = Output(tools=ToolPolicy(grammar="", forced=False, parallel=True))
    assert list(output.push(b"Yes <tool")) == [TextDelta("Yes ")]
    assert output.opens() is None
    assert list(output.push("_call>{\u00e9".encode() + b"\xc3")) == []
    assert output.opens() == 4
    assert output.opens() is None
    assert [type(event) for event in output.push(b'{"name": "On", "arguments": {}}</tool_call>')] == [ToolCall]


def test_without_parallel_calls_the_first_one_ends_the_answer() -> None:
    output = Output(tools=ToolPolicy(grammar="", forced=True, parallel=False))
    events = output.push(b'{"name": "On", "arguments": {}}</tool_call><tool_call>')
    assert [type(event) for event in events] == [ToolCall]
    assert output.done


def test_stop_strings_do_not_look_into_calls() -> None:
    output = Output(stops=("Lamp",), tools=ToolPolicy(grammar="", forced=False, parallel=True))
    events = list(output.push(f"ok {CALL} a Lamp".encode()))
    assert [event for event in events if isinstance(event, ToolCall)]
    assert output.done
    assert not output.flush()
