from typing import Any

import pytest

from appliance.agents import compact
from appliance.bus.messages import (
    AssistantMessage,
    ChatMessage,
    ChatRequest,
    ExposedEntity,
    Tool,
    ToolCall,
    ToolMessage,
    UserMessage,
)

INTENTS = ("HassTurnOn", "HassTurnOff")
DONE = {
    "speech": {},
    "response_type": "action_done",
    "data": {"success": [{"name": "Kitchen Light", "type": "entity", "id": "light.kitchen"}], "failed": []},
}


def wish(text: str, result: Any, *said: str, tool: str = "HassTurnOn") -> list[ChatMessage]:
    return [
        UserMessage(text=text),
        AssistantMessage(tool_calls=(ToolCall(id=text, name=tool, arguments={"name": "Kitchen Light"}),)),
        ToolMessage(call_id=text, name=tool, result=result),
        *(AssistantMessage(text=sentence) for sentence in said),
    ]


def told(messages: list[ChatMessage], *, examples: bool = False) -> list[ChatMessage]:
    return compact.conversation(messages, INTENTS, examples=examples)


def kinds(messages: list[ChatMessage]) -> str:
    """Return a letter for each message: user, call, result or sentence."""
    return "".join(
        "c" if isinstance(message, AssistantMessage) and message.tool_calls else message.role[0].replace("a", "s")
        for message in messages
    )


@pytest.mark.parametrize(
    ("full", "short"),
    [
        (("intent__HassTurnOn", "light__HassLightSet"), ("HassTurnOn", "HassLightSet")),
        (("assist__intent__HassTurnOn",), ("HassTurnOn",)),
        (("one__Ask", "other__Ask", "other__Tell"), ("one__Ask", "other__Ask", "Tell")),
        (("Ask", "other__Ask"), ("Ask", "other__Ask")),
        (("odd__",), ("odd__",)),
        ((), ()),
    ],
)
def test_short_names_stay_different(full: tuple[str, ...], short: tuple[str, ...]) -> None:
    assert compact.short_names([Tool(name=name) for name in full]) == dict(zip(full, short, strict=True))


def test_while_a_wish_is_open_the_examples_before_it_end_with_their_calls() -> None:
    messages = [*wish("Light on", DONE, "The light is on."), UserMessage(text="Light off")]
    assert kinds(told(messages, examples=True)) == "ucts" + "ucusucus" + "u"


@pytest.mark.parametrize(
    ("results", "shown", "sentence"),
    [
        ((DONE,), {"success": True}, "The attic lamp is on."),
        (({"error": "x"},), {"error": "No connection."}, "Sorry, the attic lamp could not be turned on."),
        ((DONE, {"error": "x"}), {"error": "No connection."}, "Sorry, the attic lamp could not be turned on."),
    ],
    ids=["done", "failed", "half"],
)
def test_when_a_result_waits_for_its_sentence_the_examples_end_as_it_did(
    results: tuple[Any, ...], shown: Any, sentence: str
) -> None:
    turn = wish("Light off", results[0])
    for result in results[1:]:
        turn += wish("More", result)[1:]
    messages = told([*wish("Light on", DONE, "The light is on."), *turn], examples=True)
    assert kinds(messages) == "ucts" + "uctsusuctsus" + "uct" + "ct" * (len(results) - 1)
    example = messages[6]
    assert isinstance(example, ToolMessage)
    assert example.result == shown
    assert messages[7] == AssistantMessage(text=sentence)


@pytest.mark.parametrize(
    ("result", "reduced"),
    [
        (DONE, {"success": True}),
        ({**DONE, "speech": {"plain": {"speech": "It is warm"}}}, {"success": True, "speech": "It is warm"}),
        (
            {**DONE, "data": {"success": [], "failed": [{"name": "Porch Light"}, {"name": "Fan"}]}},
            {"error": "failed for Porch Light, Fan"},
        ),
        (
            {"response_type": "error", "speech": {"plain": {"speech": "No such lamp"}}, "data": {"code": "x"}},
            {"error": "No such lamp"},
        ),
        ({"response_type": "error", "speech": {}, "data": {"code": "no_valid_targets"}}, {"error": "no_valid_targets"}),
        ({"error": "MatchFailedError", "error_text": "<MatchFailedError result=…>"}, {"error": "MatchFailedError"}),
        ({"error": "HomeAssistantError", "error_text": "No answer"}, {"error": "No answer"}),
        ({"error": True, "detail": 1}, {"error": "It failed."}),
        ({"error": "x" * 1000}, {"error": "x" * compact.MAX_ERROR}),
        ({"response_type": "action_done"}, {"response_type": "action_done"}),
        ({"response_type": "action_done", "speech": 1, "data": {"failed": "?"}}, {"error": "failed for "}),
        ({"result": [1, 2]}, {"result": [1, 2]}),
        ([1, 2], [1, 2]),
        (None, None),
    ],
)
def test_results_are_reduced_to_what_happened(result: Any, reduced: Any) -> None:
    message = told(wish("Light on", result))[-1]
    assert isinstance(message, ToolMessage)
    assert message.result == reduced


def test_examples_call_only_what_is_offered() -> None:
    messages = compact.conversation([UserMessage(text="Hello")], ("HassTurnOff",), examples=True)
    called = [call.name for m in messages if isinstance(m, AssistantMessage) for call in m.tool_calls]
    assert called == ["HassTurnOff"]


def test_a_conversation_may_begin_with_anything() -> None:
    result = ToolMessage(call_id="1", name="HassTurnOn", result=None)
    assert told([result]) == [result]
    assert told([AssistantMessage(text="Welcome."), UserMessage(text="Hello")])[0] == AssistantMessage(text="Welcome.")
    assert told([]) == []


def test_a_large_house_is_cut_short() -> None:
    lamps = tuple(ExposedEntity(entity_id=f"light.l{n}", names=(f"L{n}",), domain="light") for n in range(153))
    asked = ChatRequest(
        id="request-1",
        client="house",
        deadline=1,
        conversation_id="c",
        messages=(UserMessage(text="?"),),
        entities=lamps,
    )
    assert compact.instructions(asked).splitlines()[-2:] == ["- L149 (light)", "- and 3 more"]
