"""The compact style: what a model of a few hundred million parameters needs to control a house.

Such a model does what its nearest examples do. After examples that end with a call it calls; after examples
that go on to a sentence it skips the call and says that it is done; after examples of success it says that
a wish was granted which failed. So the examples stand right before the last turn, behind what was said
earlier, and are told as far as that turn has come and with the same outcome.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

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

MAX_LISTED = 150
"""Devices in a prompt; a line is about ten tokens."""

MAX_ERROR = 200
"""Characters of an error; Home Assistant's own can be a page long."""

_MANNERS = "You are the voice of a home. Answer questions briefly. To control a device, call a tool."

type Outcome = Literal["open", "done", "failed"]
"""How far a turn has come: no tool has answered yet, or all did what they should, or one did not."""


@dataclass(frozen=True, slots=True)
class _Wish:
    text: str
    tool: str
    name: str
    done: str
    failed: str


_WISHES = (
    _Wish(
        text="Turn on the attic lamp",
        tool="HassTurnOn",
        name="Attic Lamp",
        done="The attic lamp is on.",
        failed="Sorry, the attic lamp could not be turned on.",
    ),
    _Wish(
        text="Please switch off the heater",
        tool="HassTurnOff",
        name="Heater",
        done="The heater is off.",
        failed="Sorry, the heater could not be turned off.",
    ),
)
_QUESTIONS = (
    ("Why is grass green?", "Grass is green because its leaves contain chlorophyll, which reflects green light."),
    ("Who wrote Hamlet?", "William Shakespeare wrote Hamlet."),
)


def short_names(tools: Sequence[Tool]) -> dict[str, str]:
    """Return the tools' names without Home Assistant's prefixes, by full name; full where two would be the same.

    Home Assistant puts the integration, and the API where there are several, before a name: `intent__HassTurnOn`.
    """
    short = {tool.name: tool.name.rpartition("__")[2] or tool.name for tool in tools}
    count = Counter(short.values())
    return {name: brief if count[brief] == 1 else name for name, brief in short.items()}


def instructions(request: ChatRequest) -> str:
    """Return the system message: manners, the user's own instructions and one line for each device."""
    return "\n".join(part for part in (_MANNERS, request.instructions, _devices(request.entities)) if part)


def conversation(messages: Sequence[ChatMessage], offered: Sequence[str], *, examples: bool) -> list[ChatMessage]:
    """Return the conversation, with examples before its last turn.

    Args:
        messages: without system messages.
        offered: names of tools.
        examples: whether to give examples.
    """
    reduced = [_reduced(message) if isinstance(message, ToolMessage) else message for message in messages]
    said = [index for index, message in enumerate(reduced) if isinstance(message, UserMessage)]
    last = said[-1] if said else 0
    shown = _examples(offered, _outcome(reduced[last:])) if examples else ()
    return [*reduced[:last], *shown, *reduced[last:]]


def _devices(entities: Sequence[ExposedEntity]) -> str:
    lines = [f"- {entity.names[0]} ({entity.domain}{f', {entity.area}' if entity.area else ''})" for entity in entities]
    if len(lines) > MAX_LISTED:
        lines[MAX_LISTED:] = [f"- and {len(lines) - MAX_LISTED} more"]
    return "\n".join(["Devices:", *lines]) if lines else ""


def _outcome(turn: Sequence[ChatMessage]) -> Outcome:
    results = [message.result for message in turn if isinstance(message, ToolMessage)]
    if any(isinstance(result, Mapping) and "error" in result for result in results):
        return "failed"
    return "done" if results else "open"


def _reduced(message: ToolMessage) -> ToolMessage:
    return message.model_copy(update={"result": _reduced_result(message.result)})


def _reduced_result(result: Any) -> Any:
    """Return whether it worked, and why not, of an intent's response; anything else as it is."""
    if not isinstance(result, Mapping):
        return result
    if result.get("error"):
        return {"error": _reason(result.get("error_text"), result["error"])}
    data = result.get("data")
    if "response_type" not in result or not isinstance(data, Mapping):
        return result
    speech = _speech(result)
    if result["response_type"] == "error":
        return {"error": _reason(speech, data.get("code"))}
    if failed := data.get("failed"):
        return {"error": _reason(f"failed for {', '.join(_target_names(failed))}")}
    return {"success": True, "speech": speech} if speech else {"success": True}


def _reason(*candidates: Any) -> str:
    # An error without a sentence is told as Python's representation of the object.
    sentences = (text for text in candidates if isinstance(text, str) and text and not text.startswith("<"))
    return next(sentences, "It failed.")[:MAX_ERROR]


def _speech(response: Mapping[str, Any]) -> str:
    speech = response.get("speech")
    plain = speech.get("plain") if isinstance(speech, Mapping) else None
    text = plain.get("speech") if isinstance(plain, Mapping) else None
    return text if isinstance(text, str) else ""


def _target_names(targets: Any) -> Iterator[str]:
    for target in targets if isinstance(targets, Sequence) else ():
        if isinstance(target, Mapping):
            yield str(target.get("name"))


def _examples(offered: Sequence[str], outcome: Outcome) -> Iterator[ChatMessage]:
    for wish, (question, answer) in zip(_WISHES, _QUESTIONS, strict=True):
        if wish.tool in offered:
            yield from _example(wish, outcome)
        yield UserMessage(text=question)
        yield AssistantMessage(text=answer)


def _example(wish: _Wish, outcome: Outcome) -> Iterator[ChatMessage]:
    call = ToolCall(id=f"example-{wish.tool}", name=wish.tool, arguments={"name": wish.name})
    yield UserMessage(text=wish.text)
    yield AssistantMessage(tool_calls=(call,))
    if outcome == "done":
        yield ToolMessage(call_id=call.id, name=wish.tool, result={"success": True})
        yield AssistantMessage(text=wish.done)
    elif outcome == "failed":
        yield ToolMessage(call_id=call.id, name=wish.tool, result={"error": "No connection."})
        yield AssistantMessage(text=wish.failed)
