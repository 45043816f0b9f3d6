"""Turns a chat request into the model's messages and tools.

What never changes between the turns of a house (instructions, tools, examples) comes first, so that
the expert finds it in its prefix cache.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from appliance.bus.messages import (
    AssistantMessage,
    ChatMessage,
    ChatRequest,
    ExposedEntity,
    SystemMessage,
    Tool,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from appliance.settings.model import AgentSettings

MAX_NAMES = 400
"""More names than this make a grammar that costs more than it helps."""

_EXAMPLES: tuple[tuple[str, ToolCall, str], ...] = (
    (
        "Turn on the attic lamp",
        ToolCall(id="example-1", name="HassTurnOn", arguments={"name": "Attic Lamp"}),
        "The attic lamp is on.",
    ),
    (
        "Please switch off the heater",
        ToolCall(id="example-2", name="HassTurnOff", arguments={"name": "Heater"}),
        "The heater is off.",
    ),
)
_QUESTIONS = (
    (
        "Why is grass green?",
        "Grass is green because its leaves contain chlorophyll, which reflects green light.",
    ),
    ("Who wrote Hamlet?", "William Shakespeare wrote Hamlet."),
)


def build_body(request: ChatRequest, agent: AgentSettings) -> dict[str, Any]:
    """Return the chat completion request for one turn."""
    tools = request.tools if agent.control else ()
    system = [message for message in request.messages if isinstance(message, SystemMessage)]
    rest = [message for message in request.messages if not isinstance(message, SystemMessage)]
    messages: list[ChatMessage] = []
    instructions = _instructions(agent, system, request.language)
    if instructions:
        messages.append(SystemMessage(text=instructions))
    if agent.examples and tools:
        messages += _examples({tool.name for tool in tools})
    body: dict[str, Any] = {
        "model": agent.expert,
        "messages": [_render(message) for message in (*messages, *rest)],
        "max_tokens": agent.max_tokens,
        "temperature": agent.temperature,
        "repeat_penalty": agent.repeat_penalty,
    }
    if tools:
        body["tools"] = [_render_tool(tool, request.entities) for tool in tools]
    return body


def _instructions(agent: AgentSettings, system: Iterable[SystemMessage], language: str) -> str:
    parts = [agent.prompt, *(message.text for message in system)]
    if language.partition("-")[0].lower() != "en":
        parts.append(f"Answer in the language with the code {language}.")
    return "\n".join(part for part in parts if part)


def _examples(offered: set[str]) -> list[ChatMessage]:
    messages: list[ChatMessage] = []
    for (wish, call, done), (question, answer) in zip(_EXAMPLES, _QUESTIONS, strict=True):
        if call.name in offered:
            messages += [
                UserMessage(text=wish),
                AssistantMessage(tool_calls=(call,)),
                ToolMessage(call_id=call.id, name=call.name, result={"success": True}),
                AssistantMessage(text=done),
            ]
        messages += [UserMessage(text=question), AssistantMessage(text=answer)]
    return messages


def _render(message: ChatMessage) -> dict[str, Any]:
    match message:
        case SystemMessage() | UserMessage():
            return {"role": message.role, "content": message.text}
        case ToolMessage():
            return {"role": "tool", "tool_call_id": message.call_id, "content": json.dumps(message.result)}
        case AssistantMessage():
            rendered: dict[str, Any] = {"role": "assistant", "content": message.text or None}
            if message.tool_calls:
                rendered["tool_calls"] = [_render_call(call) for call in message.tool_calls]
            elif not message.text:
                rendered["content"] = ""
            return rendered


def _render_call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": json.dumps(call.arguments)}
    return {"id": call.id, "type": "function", "function": function}


def _render_tool(tool: Tool, entities: Sequence[ExposedEntity]) -> dict[str, Any]:
    parameters = _constrain(tool.parameters, entities)
    function = {"name": tool.name, "description": tool.description, "parameters": parameters}
    return {"type": "function", "function": function}


def _constrain(parameters: Mapping[str, Any], entities: Sequence[ExposedEntity]) -> dict[str, Any]:
    """Allow only names and areas that the house has, which the expert enforces by grammar."""
    allowed = {
        "name": list(dict.fromkeys(name for entity in entities for name in entity.names)),
        "area": list(dict.fromkeys(entity.area for entity in entities if entity.area)),
    }
    properties = dict(parameters.get("properties") or {})
    for key, values in allowed.items():
        schema = properties.get(key)
        if isinstance(schema, dict) and schema.get("type") == "string" and 0 < len(values) <= MAX_NAMES:
            properties[key] = {**schema, "enum": values}
    return {**parameters, "properties": properties}
