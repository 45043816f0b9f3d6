"""What a model thinks before it answers, in the form of DeepSeek-R1, Qwen3 and LFM2.5-Thinking.

`<think>…</think>` at the beginning of the answer. Some templates end the prompt with the opening mark.
"""

from typing import Literal, Protocol

from appliance.experts.chat.text import overlap
from appliance.experts.events import ReasoningDelta

OPEN = "<think>"
CLOSE = "</think>"

type Thinking = Literal["marked", "open"]
"""The answer may begin with the opening mark; or the prompt ended with it already."""


class Splitter(Protocol):
    """Tells thoughts from the answer."""

    @property
    def held(self) -> int:
        """Characters that are held back."""

    def push(self, text: str) -> tuple[ReasoningDelta | None, str]:
        """Take more text; return thoughts and text of the answer."""

    def flush(self) -> tuple[ReasoningDelta | None, str]:
        """Return what was held back, at the end."""


class ThinkSplitter:
    """Splits at the marks, which are never shown; white space around them is dropped."""

    def __init__(self, thinking: Thinking) -> None:
        self._inside = thinking == "open"
        self._over = False
        self._fresh = True
        """Nothing but white space has come since the last mark."""
        self._held = ""

    @property
    def held(self) -> int:
        """Characters that are held back."""
        return len(self._held)

    def push(self, text: str) -> tuple[ReasoningDelta | None, str]:
        """Take more text; return thoughts and text of the answer."""
        if self._over and not self._fresh:
            return None, text
        text, self._held = self._held + text, ""
        if not self._over and not self._inside:
            begin = text.lstrip()
            if not begin.startswith(OPEN):
                if OPEN.startswith(begin):
                    self._held = text
                    return None, ""
                self._over, self._fresh = True, False
                return None, text
            self._inside, text = True, begin.removeprefix(OPEN)
        thought = ""
        if self._inside:
            thought, found, text = text.partition(CLOSE)
            if not found:
                shown = thought[: len(thought) - overlap(thought, CLOSE)].rstrip()
                self._held = thought[len(shown) :]
                return self._thought(shown), ""
            self._inside, self._over = False, True
            delta = self._thought(thought.rstrip())
            self._fresh = True
        else:
            delta = None
        text = text.lstrip()
        self._fresh = not text
        return delta, text

    def flush(self) -> tuple[ReasoningDelta | None, str]:
        """Return what was held back, at the end."""
        held, self._held = self._held, ""
        return (self._thought(held), "") if self._inside else (None, held)

    def _thought(self, text: str) -> ReasoningDelta | None:
        if self._fresh:
            text = text.lstrip()
            self._fresh = not text
        return ReasoningDelta(text) if text else None
