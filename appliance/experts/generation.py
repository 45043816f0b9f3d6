"""One request from submission to its last event."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from appliance.experts.backend import Grammar, Picture
from appliance.experts.chat.output import ToolPolicy
from appliance.experts.chat.reasoning import Thinking
from appliance.experts.errors import EngineBrokenError
from appliance.experts.events import Event, Failed, Finished
from appliance.experts.sampling import Sampling


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """What the engine needs to know; everything about HTTP and chat is behind it."""

    prompt: list[int]
    max_tokens: int
    sampling: Sampling = field(default_factory=Sampling)
    stops: tuple[str, ...] = ()
    grammar: Grammar | None = None
    """What the whole answer follows."""
    tools: ToolPolicy | None = None
    name: str = ""
    """Requests of one name share the beginning of their prompts, which is then worth keeping."""
    thinking: Thinking | None = None
    """Whether, and from where, thoughts are told from the answer."""
    channels: bool = False
    """The answer is divided into harmony's channels."""
    pictures: tuple[Picture, ...] = ()
    """The images in the prompt; holding them keeps their ids alive."""
    top_logprobs: int | None = None
    """How many of the most probable tokens are reported with each token; None reports nothing."""


class Generation:
    """A submitted request, as the event loop sees it.

    Iterating yields, each time, all events that came since the last time; the last one is Finished or Failed.
    """

    def __init__(self, request: GenerationRequest, *, submitted: float, wake: Callable[[], None]) -> None:
        """Take the time of submission (monotonic) and what tells the engine that something changed."""
        self.request = request
        self.submitted = submitted
        self.cancelled = False
        self._wake = wake
        self._events: list[Event] = []
        self._arrived = asyncio.Event()
        self._ended = False

    def cancel(self) -> None:
        """Give up: the slot is free within one step. Harmless after the end."""
        if not self._ended and not self.cancelled:
            self.cancelled = True
            self._wake()

    def feed(self, events: Sequence[Event]) -> None:
        """Take events; called in the event loop."""
        self._events.extend(events)
        self._arrived.set()

    async def __aiter__(self) -> AsyncIterator[list[Event]]:
        """Yield the events in order, everything that is there at once."""
        while not self._ended:
            await self._arrived.wait()
            self._arrived.clear()
            events, self._events = self._events, []
            self._ended = any(isinstance(event, Finished | Failed) for event in events)
            if events:
                yield events

    async def finished(self) -> tuple[list[Event], Finished]:
        """Wait for the end; return all events before it, and it. Raises the error of a failed generation."""
        collected: list[Event] = []
        async for events in self:
            collected += events
        match collected.pop():
            case Finished() as last:
                return collected, last
            case Failed(error):
                raise error
            case _:
                raise EngineBrokenError("The generation ended without a last event.")
