"""Harmony, the form of gpt-oss: the answer is divided into channels, and a call is a message to a function.

`<|channel|>analysis<|message|>…<|end|><|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json
<|message|>{"a": 1}<|call|>` (https://cookbook.openai.com/articles/openai-harmony). One call an answer.
"""

import re
from collections.abc import Mapping
from typing import Any

from appliance.experts.chat.call_grammar import calls_grammar
from appliance.experts.chat.formats.calls import CallFormat, JsonCallReader, Tools, compact
from appliance.experts.chat.grammar import literal
from appliance.experts.events import ReasoningDelta

CHANNEL, MESSAGE, CONSTRAIN = "<|channel|>", "<|message|>", "<|constrain|>"
ENDS = ("<|end|>", "<|start|>", CHANNEL)
TO = " to=functions."
HEAD = re.compile(r"^([^\s<]+)[^{]*<\|message\|>\s*(?=\{)")
_END = re.compile("|".join(map(re.escape, ENDS)))


def _head(name: str) -> str:
    channel = f"({literal(CHANNEL)} ({literal('commentary')} | {literal('analysis')}))?"
    return f'{literal(name)} {channel} " "? ({literal(CONSTRAIN)})? ("json")? {literal(MESSAGE)} ws'


def _grammar(tools: Tools, *, parallel: bool) -> str:  # noqa: ARG001  # the form has no second call
    return calls_grammar(tools, parallel=False, head=_head, tail="")


def _written(name: str, arguments: Mapping[str, Any]) -> str:
    return f"{CHANNEL}commentary{TO}{name} {CONSTRAIN}json{MESSAGE}{compact(arguments)}<|call|>"


HARMONY = CallFormat(
    name="harmony",
    opening=TO,
    forcing=f"{CHANNEL}commentary{TO}",
    markers=(CHANNEL, MESSAGE, CONSTRAIN, "<|end|>", "<|start|>"),
    speaks=lambda template: CHANNEL in template and MESSAGE in template,
    grammar=_grammar,
    reader=lambda: JsonCallReader(HEAD),
    written=_written,
    channels=True,
)


class ChannelSplitter:
    """Tells the channels apart: `analysis` is thought, the rest is answer; the opening of a call passes through."""

    def __init__(self) -> None:
        self._header = True
        self._thought = False
        self._call = False
        self._held = ""

    @property
    def held(self) -> int:
        """Characters that are held back."""
        return len(self._held)

    def push(self, text: str) -> tuple[ReasoningDelta | None, str]:
        """Take more text; return thoughts and text of the answer."""
        if self._call:
            return None, text
        text, self._held = self._held + text, ""
        thoughts, answers = "", ""
        while text:
            if self._header:
                header, found, rest = text.partition(MESSAGE)
                if TO in header:
                    self._call = True
                    return _thought(thoughts), answers + text[text.index(TO) :]
                if not found:
                    self._held = text
                    break
                self._header, self._thought, text = False, "analysis" in header, rest
                continue
            match = _END.search(text)
            shown = text[: match.start()] if match else text[: len(text) - _begun(text)]
            if self._thought:
                thoughts += shown
            else:
                answers += shown
            if match is None:
                self._held = text[len(shown) :]
                break
            self._header, text = True, text[match.start() :]
            if not text.startswith(CHANNEL):
                text = text[match.end() - match.start() :]
        return _thought(thoughts), answers

    def flush(self) -> tuple[ReasoningDelta | None, str]:
        """Return what was held back, at the end; a header is dropped."""
        held, self._held = self._held, ""
        if self._header:
            return None, ""
        return (_thought(held), "") if self._thought else (None, held)


def _thought(text: str) -> ReasoningDelta | None:
    return ReasoningDelta(text) if text else None


def _begun(text: str) -> int:
    """Return the length of an end mark's beginning at the end of a text."""
    at = text.rfind("<")
    return len(text) - at if at >= 0 and any(mark.startswith(text[at:]) for mark in ENDS) else 0
