import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.experts.chat.formats import FORMATS, HERMES, CallFormat, format_of
from appliance.experts.chat.output import Output, ToolPolicy
from appliance.experts.chat.tool_calls import ToolCallParser
from appliance.experts.events import (
    CallEvent,
    Delta,
    ReasoningDelta,
    TextDelta,
    ToolCallArguments,
    ToolCallEnd,
    ToolCallStart,
)
from tests.unit.experts.test_text import SIZES, cut

ARGUMENTS: tuple[dict[str, Any], ...] = (
    {"name": "Lamp", "level": 3},
    {},
    {"text": 'a "quoted" \\ [brace} (1, 2) True, None é 🏠\n', "deep": {"a": [1, {"b": None}], "c": True}, "z": -1.5e3},
)
JSON_OBJECTS = st.dictionaries(
    st.from_regex(r"[a-z_]\w{0,5}", fullmatch=True),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    ),
    max_size=4,
)
MANY = {
    "hermes": '<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>\n<tool_call>{"name": "g", "arguments": {}}'
    "</tool_call>",
    "mistral": '[TOOL_CALLS][{"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {}}]',
    "mistral-args": '[TOOL_CALLS]f[ARGS]{"a": 1}[TOOL_CALLS]g[ARGS]{}',
    "pythonic": "<|tool_call_start|>[f(a=1), g()]<|tool_call_end|>",
}
NAMES = [form.name for form in FORMATS]


def told(events: list[CallEvent]) -> list[tuple[str, Any]]:
    """Return names and arguments; None for arguments that are not complete."""
    names = {event.index: event.name for event in events if isinstance(event, ToolCallStart)}
    ended = {event.index for event in events if isinstance(event, ToolCallEnd)}
    texts = {
        index: "".join(e.text for e in events if isinstance(e, ToolCallArguments) and e.index == index)
        for index in names
    }
    return [(name, json.loads(texts[index]) if index in ended else None) for index, name in names.items()]


def read(form: CallFormat, text: str, sizes: list[int]) -> tuple[str, list[tuple[str, Any]]]:
    parser = ToolCallParser(form)
    shown = ""
    events: list[CallEvent] = []
    for piece in cut(text, sizes):
        free, calls = parser.push(piece)
        if parser.inside and not calls:
            calls = parser.push(parser.take_excess())[1]
        shown, events = shown + free, events + calls
    return shown + parser.flush(), told(events)


@pytest.mark.parametrize("form", FORMATS, ids=NAMES)
@given(JSON_OBJECTS, SIZES)
def test_a_call_is_read_as_it_was_written_wherever_tokens_end(
    form: CallFormat, arguments: dict[str, Any], sizes: list[int]
) -> None:
    before = "" if form.at_start or form.channels else "Well. "
    shown, calls = read(form, before + form.written("turn_on", arguments), sizes)
    assert shown == before or form.channels
    assert calls == [("turn_on", arguments)]


@pytest.mark.parametrize("arguments", ARGUMENTS)
@pytest.mark.parametrize("form", FORMATS, ids=NAMES)
def test_arguments_come_in_pieces(form: CallFormat, arguments: dict[str, Any]) -> None:
    text = form.written("turn_on", arguments)
    assert form.opening in text
    reader = form.reader()
    pieces = [reader.push(character) for character in text[text.index(form.opening) + len(form.opening) :]]
    events = [event for piece in pieces for event in piece]
    assert told(events) == [("turn_on", arguments)]
    assert reader.calls == 1
    assert sum(isinstance(event, ToolCallArguments) for event in events) > len(arguments)


@pytest.mark.parametrize("name", MANY)
@given(SIZES)
def test_several_calls_are_told_apart(name: str, sizes: list[int]) -> None:
    form = next(form for form in FORMATS if form.name == name)
    assert read(form, MANY[name], sizes)[1] == [("f", {"a": 1}), ("g", {})]


@pytest.mark.parametrize("form", FORMATS, ids=NAMES)
@given(st.text(alphabet="<>/_tolcal{}[]()\"' :,=\\nameTrue", max_size=60), SIZES)
def test_nonsense_is_no_error_and_the_way_tokens_end_makes_no_difference(
    form: CallFormat, text: str, sizes: list[int]
) -> None:
    def events(parts: list[str]) -> tuple[str, int]:
        reader = form.reader()
        found = [event for part in parts for event in reader.push(part)]
        return "".join(event.text for event in found if isinstance(event, ToolCallArguments)), reader.calls

    assert events(cut(text, sizes)) == events([text])


@given(st.text(alphabet="<>/_tolcal{} ", max_size=60), SIZES)
def test_no_part_of_the_opening_is_shown(text: str, sizes: list[int]) -> None:
    parser = ToolCallParser(HERMES)
    shown = "".join(parser.push(piece)[0] for piece in cut(text, sizes)) + parser.flush()
    assert shown == text.partition(HERMES.opening)[0]


def test_an_unfinished_call_has_no_end() -> None:
    assert read(HERMES, 'a<tool_call>{"name": "On"', []) == ("a", [])
    assert read(HERMES, 'a<tool_call>{"name": "On", "arguments": {"b', []) == ("a", [("On", None)])


TEMPLATES = {
    "hermes": "{{ tools }}<tool_call>",
    "pythonic": "{{ tools }}<|tool_list_start|>",
    "mistral": "{{ tools }}[TOOL_CALLS]",
    "mistral-args": "{{ tools }}[TOOL_CALLS][ARGS]",
    "llama3": "{{ tools }}<|start_header_id|>ipython<|end_header_id|>",
    "harmony": "{{ tools }}<|channel|>analysis<|message|>",
    None: "{{ tools }}<tool_call><function=",
}


def test_the_format_is_known_by_the_template() -> None:
    for name, template in TEMPLATES.items():
        form = format_of(template)
        assert (form.name if form else None) == name
    assert format_of("<tool_call>") is None


def policy(form: CallFormat = HERMES, *, forced: bool = False, parallel: bool = True) -> ToolPolicy:
    return ToolPolicy(form=form, grammar="", forced=forced, parallel=parallel)


def calls_of(events: list[Delta]) -> list[tuple[str, Any]]:
    return told([e for e in events if isinstance(e, ToolCallStart | ToolCallArguments | ToolCallEnd)])


def test_what_the_opening_token_brought_along_is_taken_back() -> None:
    output = Output(tools=policy())
    assert list(output.push(b"Yes <tool")) == [TextDelta("Yes ")]
    assert output.opens() is None
    assert list(output.push("_call>{\u00e9".encode() + b"\xc3")) == []
    assert output.opens() == 4
    assert output.opens() is None
    events = list(output.push(b'{"name": "On", "arguments": {}}</tool_call>'))
    assert calls_of(events) == [("On", {})]


def test_without_parallel_calls_the_first_one_ends_the_answer() -> None:
    output = Output(tools=policy(forced=True, parallel=False))
    events = list(output.push(b'{"name": "On", "arguments": {}}</tool_call><tool_call>'))
    assert calls_of(events) == [("On", {})]
    assert output.done
    assert output.called


def test_stop_strings_do_not_look_into_calls_nor_thoughts() -> None:
    output = Output(stops=("Lamp",), tools=policy(), thinking="marked")
    events = list(output.push(b"<think>a Lamp</think>ok <tool_call>"))
    assert events == [ReasoningDelta("a Lamp"), TextDelta("ok ")]
    assert output.opens() == 0
    events = list(output.push(b'{"name": "On", "arguments": {"name": "Lamp"}}</tool_call>'))
    assert calls_of(events) == [("On", {"name": "Lamp"})]
    assert not output.done


def test_harmony_tells_thoughts_calls_and_text_apart() -> None:
    form = next(form for form in FORMATS if form.channels)
    head = b"<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant"
    output = Output(tools=policy(form), channels=True)
    events = [event for byte in head for event in output.push(bytes([byte]))]
    thoughts = "".join(event.text for event in events if isinstance(event, ReasoningDelta))
    assert (thoughts, len(events)) == ("Hm.", 3)
    assert not output.push(b"<|channel|>commentary to=functions.")
    assert output.opens() == 0
    assert calls_of(list(output.push(b'f <|constrain|>json<|message|>{"a": 1}'))) == [("f", {"a": 1})]

    output = Output(channels=True)
    events = list(output.push(head + b"<|channel|>final<|message|>Hello")) + list(output.flush())
    assert events == [ReasoningDelta("Hm."), TextDelta("Hello")]
