"""Splits a model's streamed text into free text and tool calls."""

from appliance.experts.chat.formats import CallFormat
from appliance.experts.chat.text import overlap
from appliance.experts.events import CallEvent


class ToolCallParser:
    """Passes free text through up to the format's opening, which is never shown, not even a part of it.

    Everything after the opening belongs to calls: the grammar in force from there allows nothing else.
    """

    def __init__(self, form: CallFormat, *, inside: bool = False) -> None:
        """Start in free text, or `inside` a call whose opening was the end of the prompt."""
        self.inside = inside
        self._form = form
        self._reader = form.reader()
        self._held = ""
        self._begun = False

    @property
    def calls(self) -> int:
        """Complete calls."""
        return self._reader.calls

    @property
    def held(self) -> int:
        """Characters that are held back."""
        return len(self._held)

    def push(self, text: str) -> tuple[str, list[CallEvent]]:
        """Take more text; return what may be shown of it, and what calls it tells of."""
        if self.inside:
            return "", self._reader.push(text)
        text, self._held = self._held + text, ""
        opening = self._form.opening
        if self._form.at_start:
            return self._push_start(text, opening), []
        shown, found, rest = text.partition(opening)
        if found:
            self.inside, self._held = True, rest
            return shown.rstrip() if self._form.channels else shown, []
        keep = overlap(text, opening)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep], []

    def take_excess(self) -> str:
        """Take back what followed the opening."""
        excess, self._held = self._held, ""
        return excess

    def flush(self) -> str:
        """Return what was held back of the free text."""
        held, self._held = self._held, ""
        return "" if self.inside else held

    def _push_start(self, text: str, opening: str) -> str:
        begin = text.lstrip()
        if self._begun:
            return text
        if begin.startswith(opening):
            self.inside, self._held = True, begin.removeprefix(opening)
            return ""
        if opening.startswith(begin):
            self._held = text
            return ""
        self._begun = True
        return text
