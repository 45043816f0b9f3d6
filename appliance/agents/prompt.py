"""Turns a chat request into the model's messages and tools.

What never changes between the turns of a house (instructions, tools, examples) comes first, so that
the expert finds it in its prefix cache.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from appliance.agents import compact
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


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a model is asked, and how its answer is to be read."""

    body: Mapping[str, Any]
    """The chat completion request."""
    tool_names: Mapping[str, str]
    """Home Assistant's name of each tool, by the name that the model knows."""

    def restore(self, call: ToolCall) -> ToolCall:
        """Return a model's call under Home Assistant's name of the tool."""
        return call.model_copy(update={"name": self.tool_names.get(call.name, call.name)})


def build_prompt(request: ChatRequest, agent: AgentSettings) -> Prompt:
    """Return the prompt for one turn, in the agent's style."""
    tools = request.tools if agent.control else ()
    messages: list[ChatMessage] = [message for message in request.messages if not isinstance(message, SystemMessage)]
    if agent.prompt_style == "compact":
        names = compact.short_names(tools)
        told = [compact.instructions(request)]
        messages = [_renamed(message, names) for message in messages]
        messages = compact.conversation(messages, tuple(names.values()), examples=agent.examples and bool(tools))
    else:
        names = {tool.name: tool.name for tool in tools}
        told = [message.text for message in request.messages if isinstance(message, SystemMessage)]
    system = "\n".join(part for part in (agent.prompt, *told, _language(request.language)) if part)
    if system:
        messages.insert(0, SystemMessage(text=system))
    body: dict[str, Any] = {
        "messages": [_render(message) for message in messages],
        "max_tokens": agent.max_tokens,
        "temperature": agent.temperature,
        "repeat_penalty": agent.repeat_penalty,
    }
    if tools:
        body["tools"] = [_render_tool(tool, names[tool.name], request.entities) for tool in tools]
    return Prompt(body, {name: full for full, name in names.items()})


def _language(code: str) -> str:
    return "" if code.partition("-")[0].lower() == "en" else f"Answer in the language with the code {code}."


def _renamed(message: ChatMessage, names: Mapping[str, str]) -> ChatMessage:
    match message:
        case ToolMessage():
            return message.model_copy(update={"name": names.get(message.name, message.name)})
        case AssistantMessage(tool_calls=calls) if calls:
            renamed = tuple(call.model_copy(update={"name": names.get(call.name, call.name)}) for call in calls)
            return message.model_copy(update={"tool_calls": renamed})
    return message


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


def _render_tool(tool: Tool, name: str, entities: Sequence[ExposedEntity]) -> dict[str, Any]:
    parameters = _constrain(tool.parameters, entities)
    function = {"name": name, "description": tool.description, "parameters": parameters}
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
