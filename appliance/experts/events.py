"""What a running request reports, from the engine thread to the event loop."""

from dataclasses import dataclass
from typing import Literal

from appliance.experts.errors import ExpertError

type FinishReason = Literal["stop", "length", "tool_calls"]


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More free text."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A complete tool call."""

    index: int
    name: str
    arguments: str
    """JSON text of an object."""


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


type Event = TextDelta | ToolCall | Finished | Failed
