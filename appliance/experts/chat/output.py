"""What becomes of a request's tokens: characters, stop strings, tool calls."""

from collections.abc import Sequence
from dataclasses import dataclass

from appliance.experts.chat.text import StopStrings, Utf8Stream
from appliance.experts.chat.tool_calls import MOST_CALLS, ToolCallParser
from appliance.experts.events import TextDelta, ToolCall

type Delta = TextDelta | ToolCall


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolPolicy:
    """How one request may call tools."""

    grammar: str
    """GBNF of what follows an opening marker."""
    forced: bool
    """The prompt ends with an opening marker."""
    parallel: bool
    """Whether more than one call may be made."""


class Output:
    """Turns the pieces of sampled tokens into deltas."""

    def __init__(self, *, stops: tuple[str, ...] = (), tools: ToolPolicy | None = None) -> None:
        self._characters = Utf8Stream()
        self._stops = StopStrings(stops)
        self._tools = tools
        self._parser = ToolCallParser(inside=tools.forced) if tools else None
        self._opened = tools is not None and tools.forced

    @property
    def done(self) -> bool:
        """Whether nothing that follows will be shown."""
        if self._stops.stopped:
            return True
        parser, tools = self._parser, self._tools
        if parser is None or tools is None or not parser.calls:
            return False
        return not tools.parallel or parser.calls >= MOST_CALLS

    @property
    def called(self) -> bool:
        """Whether a tool was called."""
        return self._parser is not None and self._parser.calls > 0

    def push(self, piece: bytes) -> Sequence[Delta]:
        """Take a token's bytes."""
        text = self._characters.push(piece)
        if self._parser is None:
            shown = self._stops.push(text)
            return (TextDelta(shown),) if shown else ()
        return self._filter(self._parser.push(text)) if text else ()

    def opens(self) -> int | None:
        """After a push: None, or that the first call has begun and how many bytes pushed are beyond it.

        These bytes are forgotten here: what follows the marker is generated again under the grammar.
        """
        if self._opened or self._parser is None or not self._parser.inside:
            return None
        self._opened = True
        incomplete = len(self._characters.take())
        return len(self._parser.take_excess().encode()) + incomplete

    def flush(self) -> Sequence[Delta]:
        """Return what was held back, at the end of the generation."""
        if self._stops.stopped:
            return ()
        events: list[Delta] = []
        text = self._characters.flush()
        if self._parser is None:
            events.append(TextDelta(self._stops.push(text)))
        else:
            events += self._filter([*self._parser.push(text), *self._parser.flush()])
        if not self._stops.stopped:
            events.append(TextDelta(self._stops.flush()))
        return [event for event in events if not isinstance(event, TextDelta) or event.text]

    def _filter(self, events: Sequence[Delta]) -> Sequence[Delta]:
        shown: list[Delta] = []
        for event in events:
            if isinstance(event, ToolCall):
                if held := self._stops.flush():
                    shown.append(TextDelta(held))
                shown.append(event)
            elif text := self._stops.push(event.text):
                shown.append(TextDelta(text))
            if self.done:
                break
        return shown
