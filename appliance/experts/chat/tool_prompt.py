"""Tools for models whose template knows nothing of them: a compact list and the Hermes form, as text.

A small model follows it from a few examples, which the caller sends as ordinary messages with tool calls.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from appliance.experts.chat.formats import CallFormat
from appliance.experts.chat.formats.hermes import CLOSE, OPEN
from appliance.experts.http.messages import Function, Message, MessageToolCall

FEW_VALUES = 4
"""An argument's possible values are listed if there are no more than this; the grammar enforces them all."""

HOW = f'To call a tool, answer with {OPEN}{{"name": "Tool", "arguments": {{"argument": "value"}}}}{CLOSE}.'

type Json = dict[str, Any]


def describe(functions: Sequence[Function]) -> str:
    """Return the list of tools for the system message."""
    return "\n".join([HOW, "Tools:", *(_line(function) for function in functions)])


def generic_messages(messages: Sequence[Message], functions: Sequence[Function]) -> list[Json]:
    """Return messages of system, user and assistant with text only, the tools among them."""
    result: list[Json] = []
    for message in messages:
        match message.role:
            case "tool":
                text = f"<tool_response>{message.text}</tool_response>"
                if result and result[-1]["role"] == "user" and messages_end_with_tool(result):
                    result[-1]["content"] += "\n" + text
                else:
                    result.append({"role": "user", "content": text})
            case "assistant":
                calls = "".join(_call(call) for call in message.tool_calls or ())
                result.append({"role": "assistant", "content": message.text + calls})
            case "developer" | "system":
                result.append({"role": "system", "content": message.text})
            case "user":
                result.append({"role": "user", "content": message.text})
    if functions:
        if not result or result[0]["role"] != "system":
            result.insert(0, {"role": "system", "content": ""})
        result[0]["content"] = f"{result[0]['content']}\n{describe(functions)}".strip()
    return result


def native_messages(messages: Sequence[Message]) -> list[Json]:
    """Return messages for a template that knows tools; arguments are objects, as templates want them."""
    result: list[Json] = []
    for message in messages:
        role = "system" if message.role == "developer" else message.role
        entry: Json = {"role": role, "content": message.text}
        if message.reasoning_content:
            entry["reasoning_content"] = message.reasoning_content
        if message.tool_calls:
            entry["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {
                        "name": call.function.name,
                        "arguments": json.loads(call.function.arguments),
                    },
                }
                for call in message.tool_calls
            ]
        if message.role == "tool":
            entry |= {"tool_call_id": message.tool_call_id, "name": message.name}
        result.append(entry)
    return result


def with_written_calls(messages: Sequence[Json], form: CallFormat) -> list[Json]:
    """Return messages for a template that leaves calls out: they stand in the content, as the model writes them."""
    return [
        {
            **{key: value for key, value in message.items() if key != "tool_calls"},
            "content": message["content"] + "".join(_written(call["function"], form) for call in message["tool_calls"]),
        }
        if "tool_calls" in message
        else message
        for message in messages
    ]


def messages_end_with_tool(messages: Sequence[Json]) -> bool:
    """Whether the last message is a tool's response."""
    return str(messages[-1]["content"]).endswith("</tool_response>")


def _written(function: Json, form: CallFormat) -> str:
    return form.written(function["name"], function["arguments"])


def _call(call: MessageToolCall) -> str:
    arguments = json.loads(call.function.arguments)
    body = json.dumps({"name": call.function.name, "arguments": arguments}, ensure_ascii=False)
    return f"{OPEN}{body}{CLOSE}"


def _line(function: Function) -> str:
    properties = function.parameters.get("properties")
    arguments = properties if isinstance(properties, Mapping) else {}
    signature = ", ".join(_argument(name, schema) for name, schema in arguments.items())
    first, _, _ = (function.description or "").strip().partition("\n")
    sentence = first.split(". ")[0].rstrip(".")
    return f"{function.name}({signature}): {sentence}" if sentence else f"{function.name}({signature})"


def _argument(name: str, schema: object) -> str:
    values = schema.get("enum") if isinstance(schema, Mapping) else None
    if not isinstance(values, list) or not 0 < len(values) <= FEW_VALUES:
        return name
    return f"{name}: {'|'.join(str(value) for value in values)}"
