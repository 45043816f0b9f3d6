"""The form of LiquidAI's LFM2: Python calls in a list, between marks.

`<|tool_call_start|>[turn_on(name="Attic Lamp", level=3), stop()]<|tool_call_end|>`
(https://docs.liquid.ai/lfm/key-concepts/tool-use). The grammar lets strings be JSON strings only, which are Python
strings too.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from appliance.experts.chat.call_grammar import calls_grammar, python_literal
from appliance.experts.chat.formats.calls import CallFormat, Tools
from appliance.experts.chat.grammar import literal
from appliance.experts.events import CallEvent, ToolCallArguments, ToolCallEnd, ToolCallStart

OPEN = "<|tool_call_start|>"
CLOSE = "<|tool_call_end|>"
LONGEST_NAME = 512
WORDS = {"True": "true", "False": "false", "None": "null"}
_LETTERS = re.compile(r"[A-Za-z]")


def _grammar(tools: Tools, *, parallel: bool) -> str:
    return calls_grammar(
        tools,
        parallel=parallel,
        head=lambda name: literal(f"{name}("),
        start='ws "[" ws',
        tail='")"',
        between='ws "," ws',
        end=f'ws "]" {literal(CLOSE)}',
        python=True,
    )


def _written(name: str, arguments: Mapping[str, Any]) -> str:
    pairs = ", ".join(f"{key}={python_literal(value)}" for key, value in arguments.items())
    return f"{OPEN}[{name}({pairs})]{CLOSE}"


class PythonCallReader:
    """Reads calls and writes their arguments as JSON."""

    def __init__(self) -> None:
        self.calls = 0
        self._index = -1
        self._step: Callable[[str], str] = self._between
        self._word = ""
        self._depth = 0
        self._string = self._escaped = self._first = False
        self._events: list[CallEvent] = []
        self._out: list[str] = []

    def push(self, text: str) -> list[CallEvent]:
        """Take more text; return what it says."""
        self._events = []
        for character in text:
            if out := self._step(character):
                self._out.append(out)
        self._send()
        return self._events

    def _send(self) -> None:
        if self._out:
            self._events.append(ToolCallArguments(self._index, "".join(self._out)))
            self._out = []

    def _between(self, character: str) -> str:
        if character == "(":
            self._index += 1
            self._events.append(ToolCallStart(self._index, self._word))
            self._word, self._first, self._step = "", True, self._key
            return "{"
        if character in "[], \n\t":
            self._word = ""
        else:
            self._word = (self._word + character)[-LONGEST_NAME:]
        return ""

    def _key(self, character: str) -> str:
        if character == ")":
            return self._finish()
        if character == "=":
            comma, self._first = ("" if self._first else ", "), False
            out = f"{comma}{json.dumps(self._word)}: "
            self._word, self._depth, self._step = "", 0, self._value
            return out
        if character not in ", \n\t":
            self._word = (self._word + character)[-LONGEST_NAME:]
        return ""

    def _value(self, character: str) -> str:
        if self._string:
            if self._escaped:
                self._escaped = False
            elif character == "\\":
                self._escaped = True
            elif character == '"':
                self._string = False
            return character
        if _LETTERS.match(character) and len(self._word) < LONGEST_NAME:
            self._word += character
            return ""
        word, self._word = self._word, ""
        word = WORDS.get(word, word)
        if not self._depth and character in ",)":
            self._step = self._key
            if character == ")":
                self._out.append(word)
                return self._finish()
            return word
        self._string = character == '"'
        self._depth += (character in "{[") - (character in "}]")
        return word + character

    def _finish(self) -> str:
        self._out.append("}")
        self._send()
        self._events.append(ToolCallEnd(self._index))
        self._word, self._step = "", self._between
        self.calls += 1
        return ""


PYTHONIC = CallFormat(
    name="pythonic",
    opening=OPEN,
    forcing=OPEN,
    markers=(OPEN, CLOSE),
    speaks=lambda template: OPEN in template or "<|tool_list_start|>" in template,
    grammar=_grammar,
    reader=PythonCallReader,
    written=_written,
)
