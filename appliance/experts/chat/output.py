"""What becomes of a request's tokens: characters, thoughts, tool calls, stop strings."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from appliance.experts.backend import Grammar
from appliance.experts.chat.call_grammar import MOST_CALLS
from appliance.experts.chat.formats import CallFormat
from appliance.experts.chat.formats.harmony import ChannelSplitter
from appliance.experts.chat.reasoning import Splitter, Thinking, ThinkSplitter
from appliance.experts.chat.text import StopStrings, Utf8Stream
from appliance.experts.chat.tool_calls import ToolCallParser
from appliance.experts.events import CallEvent, Delta, ReasoningDelta, TextDelta, TokenLogprob


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolPolicy:
    """How one request may call tools."""

    form: CallFormat
    grammar: Grammar
    """GBNF of what follows the opening."""
    forced: bool
    """The prompt ends with the opening."""
    parallel: bool
    """Whether more than one call may be made."""


class Output:
    """Turns the pieces of sampled tokens into deltas."""

    def __init__(
        self,
        *,
        stops: tuple[str, ...] = (),
        tools: ToolPolicy | None = None,
        thinking: Thinking | None = None,
        channels: bool = False,
    ) -> None:
        self._characters = Utf8Stream()
        self._stops = StopStrings(stops)
        self._tools = tools
        forced = tools is not None and tools.forced
        self._parser = ToolCallParser(tools.form, inside=forced) if tools else None
        self._opened = forced
        self._splitter: Splitter | None = None
        if not forced:
            self._splitter = ChannelSplitter() if channels else ThinkSplitter(thinking) if thinking else None
        self._plain = self._parser is None and self._splitter is None
        self._received = 0
        self._tokens: list[TokenLogprob] = []

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

    def push(self, piece: bytes, logprob: TokenLogprob | None = None) -> Sequence[Delta]:
        """Take a token's bytes, and how probable it was if that is to be told."""
        text = self._characters.push(piece)
        if logprob is None:
            return self._route(text)
        self._tokens.append(replace(logprob, offset=self._received))
        return self._with_logprobs(self._route(text))

    def opens(self) -> int | None:
        """After a push: None, or that the first call has begun and how many bytes pushed are beyond it.

        These bytes are forgotten here: what follows the opening is generated again under the grammar.
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
        events: list[Delta] = list(self._route(self._characters.flush()))
        text = ""
        if self._splitter is not None:
            thought, text = self._splitter.flush()
            if thought:
                events.append(thought)
        if self._parser is not None:
            shown, calls = self._parser.push(text) if text else ("", [])
            events += calls
            text = shown + self._parser.flush()
        if not self._stops.stopped:
            text = self._stops.push(text)
        if not self._stops.stopped:
            text += self._stops.flush()
        if text:
            events.append(TextDelta(text))
        return self._with_logprobs(events) if self._tokens else events

    def _route(self, text: str) -> Sequence[Delta]:
        self._received += len(text)
        if self._plain:
            shown = self._stops.push(text)
            return (TextDelta(shown),) if shown else ()
        thought: ReasoningDelta | None = None
        calls: list[CallEvent] = []
        if self._splitter is not None:
            thought, text = self._splitter.push(text)
        if self._parser is not None and text:
            text, calls = self._parser.push(text)
        shown = self._stops.push(text) if text else ""
        if self._parser is not None and self._parser.inside and not self._stops.stopped:
            shown += self._stops.flush()
        events: list[Delta] = []
        if thought:
            events.append(thought)
        if shown:
            events.append(TextDelta(shown))
        events += calls
        return events

    def _with_logprobs(self, events: Sequence[Delta]) -> Sequence[Delta]:
        """Give the text the tokens it came from; drop those of thoughts and calls."""
        held = self._stops.held
        for stage in (self._splitter, self._parser):
            held += stage.held if stage else 0
        told = self._received - held
        ready = tuple(token for token in self._tokens if token.offset < told)
        del self._tokens[: len(ready)]
        last = next((event for event in reversed(events) if isinstance(event, TextDelta)), None)
        if last is None:
            return events
        return [TextDelta(last.text, ready) if event is last else event for event in events]
