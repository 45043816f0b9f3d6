"""Tool calls in a model's text, in the Hermes form that Qwen, SmolLM3 and others were trained on.

`<tool_call>{"name": "HassTurnOn", "arguments": {"name": "Attic Lamp"}}</tool_call>`
(https://github.com/NousResearch/Hermes-Function-Calling).
"""

import json

from appliance.experts.chat.text import overlap
from appliance.experts.events import TextDelta, ToolCall

OPEN = "<tool_call>"
CLOSE = "</tool_call>"
MOST_CALLS = 8
"""Calls in one answer; a model that goes on has lost its way."""


def parse_call(text: str, index: int) -> ToolCall | None:
    """Read what stands between the markers; None if it is no call."""
    try:
        call = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        return None
    arguments = call.get("arguments", call.get("parameters", {}))
    if not isinstance(arguments, dict):
        return None
    return ToolCall(index, call["name"], json.dumps(arguments, ensure_ascii=False))


class ToolCallParser:
    """Splits streamed text into free text and complete calls; a marker is never shown, not even a part of it.

    What stands between the markers and is no call is dropped, and so is white space around calls.
    """

    def __init__(self, *, inside: bool = False) -> None:
        """Start in free text, or `inside` a call whose opening marker was part of the prompt."""
        self.inside = inside
        self.calls = 0
        self._held = ""

    def push(self, text: str) -> list[TextDelta | ToolCall]:
        """Take more text; return what is complete."""
        events: list[TextDelta | ToolCall] = []
        self._held += text
        while True:
            if self.inside:
                body, found, rest = self._held.partition(CLOSE)
                if not found:
                    return events
                if (call := parse_call(body, self.calls)) is not None:
                    events.append(call)
                    self.calls += 1
                self.inside, self._held = False, rest
            else:
                shown, found, rest = self._held.partition(OPEN)
                if not found:
                    keep = overlap(shown, OPEN)
                    self._held = shown[len(shown) - keep :] if keep else ""
                    self._show(shown[: len(shown) - keep], events)
                    return events
                self._show(shown, events)
                self.inside, self._held = True, rest

    def take_excess(self) -> str:
        """Take back what followed an opening marker."""
        excess, self._held = self._held, ""
        return excess

    def flush(self) -> list[TextDelta | ToolCall]:
        """Return what was held back; an unfinished call is dropped."""
        events: list[TextDelta | ToolCall] = []
        if not self.inside:
            self._show(self._held, events)
        self._held = ""
        return events

    def _show(self, text: str, events: list[TextDelta | ToolCall]) -> None:
        if self.calls and not text.strip():
            return
        if text:
            events.append(TextDelta(text))
