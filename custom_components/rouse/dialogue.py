"""Home Assistant's chat log as bus messages."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import probatio
from homeassistant.components import conversation
from homeassistant.helpers import llm

from .messages import (
    TOOL_NAME,
    AssistantMessage,
    ChatMessage,
    SystemMessage,
    Tool,
    ToolCall,
    ToolMessage,
    UserMessage,
)

MAX_TOOLS = 256
"""As many as one request may carry."""


def messages_from(content: list[conversation.Content]) -> Iterator[ChatMessage]:
    """Yield a chat log's content as messages.

    Calls that another agent had executed elsewhere are left out, and so are their results.
    """
    sent: set[str] = set()
    for item in content:
        match item:
            case conversation.SystemContent():
                yield SystemMessage(item.content)
            case conversation.UserContent():
                yield UserMessage(item.content)
            case conversation.AssistantContent():
                calls = tuple(_calls(item))
                sent.update(call.id for call in calls)
                yield AssistantMessage(item.content or "", calls)
            case conversation.ToolResultContent() if item.tool_call_id in sent:
                yield ToolMessage(item.tool_call_id, item.tool_name, _result(item.result))


def tools_from(api: llm.APIInstance) -> tuple[Tool, ...]:
    """Return an LLM API's tools, as many as a request may carry."""
    return tuple(_tool(tool, api.custom_serializer) for tool in api.tools if _fits(tool.name))[:MAX_TOOLS]


def _fits(tool_name: str) -> bool:
    return re.fullmatch(TOOL_NAME, tool_name) is not None


def _tool(tool: llm.Tool, custom_serializer: Callable[[Any], Any] | None) -> Tool:
    parameters = probatio.to_openapi(tool.parameters, custom_serializer=custom_serializer, openapi_version="3.1.0")
    return Tool(tool.name, tool.description or "", parameters)


def _calls(content: conversation.AssistantContent) -> Iterator[ToolCall]:
    for call in content.tool_calls or ():
        if not call.external and _fits(call.tool_name):
            yield ToolCall(call.id, call.tool_name, call.tool_args)


def _result(result: llm.ToolResult) -> Any:
    return {"error": True, **result.data} if result.error else result.data
