"""Turns a chat request into the model's messages and tools.

What never changes between the turns of a house (instructions, tools, examples) comes first, so that
the expert finds it in its prefix cache.
"""

import json
from collections.abc import Mapping, Sequence
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

MAX_LISTED = 150
"""Devices in a compact prompt; a line is about ten tokens."""

_MANNERS = "You are the voice of a home. Answer questions briefly. To control a device, call a tool."

_EXAMPLES = (
    ("Turn on the attic lamp", "HassTurnOn", "Attic Lamp", "The attic lamp is on."),
    ("Please switch off the heater", "HassTurnOff", "Heater", "The heater is off."),
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
    rest = [message for message in request.messages if not isinstance(message, SystemMessage)]
    messages: list[ChatMessage] = []
    instructions = _instructions(agent, request)
    if instructions:
        messages.append(SystemMessage(text=instructions))
    if agent.examples and tools:
        messages += _examples(tools)
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


def _instructions(agent: AgentSettings, request: ChatRequest) -> str:
    parts = [agent.prompt]
    if agent.prompt_style == "full":
        parts += [message.text for message in request.messages if isinstance(message, SystemMessage)]
    else:
        parts += [_MANNERS, request.instructions, _devices(request.entities)]
    if request.language.partition("-")[0].lower() != "en":
        parts.append(f"Answer in the language with the code {request.language}.")
    return "\n".join(part for part in parts if part)


def _devices(entities: Sequence[ExposedEntity]) -> str:
    lines = [f"- {entity.names[0]} ({entity.domain}{f', {entity.area}' if entity.area else ''})" for entity in entities]
    if len(lines) > MAX_LISTED:
        lines[MAX_LISTED:] = [f"- and {len(lines) - MAX_LISTED} more"]
    return "\n".join(["Devices:", *lines]) if lines else ""


def _examples(tools: Sequence[Tool]) -> list[ChatMessage]:
    # Home Assistant puts the integration before the intent's name: intent__HassTurnOn.
    offered = {tool.name.rpartition("__")[2]: tool.name for tool in tools}
    messages: list[ChatMessage] = []
    for (wish, intent, name, done), (question, answer) in zip(_EXAMPLES, _QUESTIONS, strict=True):
        if tool := offered.get(intent):
            call = ToolCall(id=f"example-{intent}", name=tool, arguments={"name": name})
            messages += [
                UserMessage(text=wish),
                AssistantMessage(tool_calls=(call,)),
                ToolMessage(call_id=call.id, name=tool, result={"success": True}),
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
