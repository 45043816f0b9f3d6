"""What the formats have in common: marks, a grammar, and a reader that streams the arguments."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from appliance.experts.events import CallEvent, ToolCallArguments, ToolCallEnd, ToolCallStart

LONGEST_HEAD = 4096
"""Characters between two calls' arguments; a model that writes more has lost its way."""


type Tools = Sequence[tuple[str, Mapping[str, Any]]]
"""Names, and the JSON Schemas of the arguments."""


class CallReader(Protocol):
    """Reads what follows a format's opening, piece by piece; it never raises."""

    calls: int
    """Complete calls."""

    def push(self, text: str) -> list[CallEvent]:
        """Take more text; return what it says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFormat:
    """A way of writing tool calls."""

    name: str
    opening: str
    """What a call begins with; everything after it follows the grammar, up to the end of the answer."""
    at_start: bool = False
    """The opening counts only where the answer begins."""
    forcing: str
    """What a prompt ends with when a call must follow; it ends with the opening."""
    markers: tuple[str, ...] = ()
    """Control tokens of the format, whose text is needed to read it."""
    speaks: Callable[[str], bool]
    """Whether a chat template that mentions tools uses this format."""
    grammar: Callable[..., str]
    """Takes Tools and `parallel`; returns GBNF of what follows the opening. Raises InvalidRequestError."""
    reader: Callable[[], CallReader]
    written: Callable[[str, Mapping[str, Any]], str]
    """A call as the model writes it, from name and arguments: for templates that leave that out."""
    channels: bool = False
    """The answer is divided into channels (harmony)."""


@dataclass(slots=True)
class JsonCallReader:
    """Reads calls whose arguments are JSON objects; `head` matches what stands before one, its group 1 is the name."""

    head: re.Pattern[str]
    calls: int = 0
    _held: str = ""
    _object: "JsonObject | None" = None
    _lost: bool = False
    _index: int = field(default=-1)

    def push(self, text: str) -> list[CallEvent]:
        """Take more text; return what it says."""
        events: list[CallEvent] = []
        text, self._held = self._held + text, ""
        while text and not self._lost:
            if self._object is None:
                match = self.head.search(text)
                if match is None:
                    self._held, self._lost = text, len(text) > LONGEST_HEAD
                    break
                self._index += 1
                self._object = JsonObject()
                events.append(ToolCallStart(self._index, _unescaped(match[1])))
                text = text[match.end() :]
                continue
            length = self._object.push(text)
            if length:
                events.append(ToolCallArguments(self._index, text[:length]))
            text = text[length:]
            if self._object.complete:
                events.append(ToolCallEnd(self._index))
                self._object = None
                self.calls += 1
        return events


_TURNS = re.compile(r'["\\{}\[\]]')


class JsonObject:
    """Finds where a JSON object ends."""

    def __init__(self) -> None:
        self.complete = False
        self._depth = 0
        self._string = self._escaped = False

    def push(self, text: str) -> int:
        """Take more of the object; return how many characters belong to it."""
        at = 0
        while not self.complete:
            if self._escaped and at < len(text):
                self._escaped, at = False, at + 1
            match = _TURNS.search(text, at)
            if match is None:
                return len(text)
            at = match.end()
            self._turn(match.group())
        return at

    def _turn(self, character: str) -> None:
        if self._string:
            self._escaped = character == "\\"
            self._string = character != '"'
        elif character == '"':
            self._string = True
        elif character in "{[":
            self._depth += 1
        elif character in "}]":
            self._depth -= 1
            self.complete = self._depth <= 0


def compact(value: object) -> str:
    """Return JSON as models write it."""
    return json.dumps(value, ensure_ascii=False)


def _unescaped(name: str) -> str:
    try:
        return str(json.loads(f'"{name}"'))
    except ValueError:
        return name
