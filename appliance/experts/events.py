"""What a running request reports, from the engine thread to the event loop."""

from dataclasses import dataclass
from typing import Literal

from appliance.experts.errors import ExpertError

type FinishReason = Literal["stop", "length", "tool_calls"]


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """How probable a chosen token was, and which others were."""

    token: bytes
    logprob: float
    """Natural logarithm of its probability in the model's own distribution, before any sampler."""
    top: tuple[tuple[bytes, float], ...]
    """The most probable tokens with theirs, best first."""
    offset: int = 0
    """Characters of the answer before the token."""


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More free text."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()
    """Of the tokens that the text came from, if asked for."""


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """More of what the model thinks before it answers."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCallStart:
    """A tool call begins; its arguments follow."""

    index: int
    name: str


@dataclass(frozen=True, slots=True)
class ToolCallArguments:
    """More of a tool call's arguments; all of them together are the JSON text of an object."""

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class ToolCallEnd:
    """The tool call's arguments are complete."""

    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Counts in tokens, durations in milliseconds; the names are llama-server's."""

    cache_n: int
    """Prompt tokens whose KV was there already."""
    prompt_n: int
    """Prompt tokens computed."""
    prompt_ms: float
    """From the admission to a slot to the first token."""
    predicted_n: int
    predicted_ms: float
    """From the first token to the last."""
    queue_ms: float
    """From the arrival to the admission."""


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of a request that went well."""

    reason: FinishReason
    timings: Timings


@dataclass(frozen=True, slots=True)
class Failed:
    """The last event of a request that did not."""

    error: ExpertError


type CallEvent = ToolCallStart | ToolCallArguments | ToolCallEnd
type Delta = TextDelta | ReasoningDelta | CallEvent
type Event = Delta | Finished | Failed
