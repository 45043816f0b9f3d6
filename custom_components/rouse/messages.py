"""The bus messages that the integration reads and sends.

What is read is validated: each type's annotations are its schema. Fields that the integration has
no use for are left out, and unknown ones are ignored, so that a newer hub is still understood.
Times are Unix times in seconds, sizes are bytes, durations are seconds.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import probatio


def _integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise probatio.Invalid("expected an integer")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise probatio.Invalid("expected a number")
    return float(value)


def _tuple(value: list[Any]) -> tuple[Any, ...]:
    return tuple(value)


SLUG = r"[a-z0-9][a-z0-9_-]{0,62}"
TOOL_NAME = r"[A-Za-z0-9_.:-]{1,128}"

Slug = Annotated[str, probatio.Match(rf"{SLUG}\Z")]
RequestId = Annotated[str, probatio.Match(r"[A-Za-z0-9_-]{8,64}\Z")]
CallId = Annotated[str, probatio.Length(min=1, max=128)]
ToolName = Annotated[str, probatio.Match(rf"{TOOL_NAME}\Z")]
Language = Annotated[str, probatio.Match(r"([A-Za-z0-9-]{1,35}|\*)\Z")]
Label = Annotated[str, probatio.Length(max=255)]
"""Text that ends up in one of Home Assistant's registries."""
Count = Annotated[int, _integer, probatio.Range(min=0)]
Fraction = Annotated[float, _number, probatio.Range(min=0, max=1)]
Number = Annotated[float, _number]
Duration = Annotated[float, _number, probatio.Range(min=0, max=1e10)]


@dataclass(frozen=True, slots=True)
class Presence:
    """Whether a hub or node is there."""

    state: Literal["online", "offline"]


@dataclass(frozen=True, slots=True)
class HubAnnouncement:
    """The hub, for discovery."""

    hub: Slug
    name: Label
    version: Label


@dataclass(frozen=True, slots=True)
class AgentAnnouncement:
    """An agent that takes chat requests."""

    agent: Slug
    name: Label
    languages: Annotated[tuple[Language, ...], _tuple] = ("*",)
    """BCP 47 tags the agent answers in; `*` means any."""
    control: bool = True
    """Whether the agent uses tools to control the house."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """What a node is made of."""

    architecture: Label
    cpu: Label
    cores: Count
    memory_bytes: Count


@dataclass(frozen=True, slots=True)
class NodeAnnouncement:
    """A machine that runs experts."""

    node: Slug
    name: Label
    version: Label
    hardware: Hardware


@dataclass(frozen=True, slots=True)
class NodeTelemetry:
    """How a node is doing."""

    cpu: Fraction
    memory: Fraction
    disk: Fraction
    uptime: Duration
    temperature: Number | None = None
    """Degrees Celsius."""
    active_requests: Count = 0
    queued_requests: Count = 0
    generated_tokens: Count = 0


ExpertState = Literal["starting", "ready", "failed", "stopped"]


@dataclass(frozen=True, slots=True)
class ExpertStatus:
    """One served model of a node."""

    expert: Slug
    node: Slug
    state: ExpertState
    model: str | None = None
    context: Count | None = None
    """Tokens one request may use, prompt and answer together."""
    error: str | None = None


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the model asks Home Assistant to execute."""

    id: CallId
    name: ToolName
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ReplyText:
    """A piece of the answer, to be appended to the earlier ones."""

    id: RequestId
    seq: Count
    text: str


@dataclass(frozen=True, slots=True)
class ReplyToolCall:
    """A tool call, whole."""

    id: RequestId
    seq: Count
    call: ToolCall


@dataclass(frozen=True, slots=True)
class ReplyFinished:
    """The end of a good reply; it repeats everything."""

    id: RequestId
    seq: Count
    text: str
    tool_calls: Annotated[tuple[ToolCall, ...], _tuple] = ()


@dataclass(frozen=True, slots=True)
class ReplyFailed:
    """The end of a reply that failed."""

    id: RequestId
    seq: Count
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class ReplyUnknown:
    """A reply of a kind that a newer hub sends; it has its place in the sequence."""

    id: RequestId
    seq: Count
    kind: str


type Reply = ReplyText | ReplyToolCall | ReplyFinished | ReplyFailed | ReplyUnknown


@dataclass(frozen=True, slots=True)
class SystemMessage:
    """Instructions."""

    text: str
    role: Literal["system"] = "system"


@dataclass(frozen=True, slots=True)
class UserMessage:
    """What the user said."""

    text: str
    role: Literal["user"] = "user"


@dataclass(frozen=True, slots=True)
class AssistantMessage:
    """What the agent said or asked for earlier."""

    text: str
    tool_calls: tuple[ToolCall, ...] = ()
    role: Literal["assistant"] = "assistant"


@dataclass(frozen=True, slots=True)
class ToolMessage:
    """What a tool returned."""

    call_id: str
    name: str
    result: Any
    role: Literal["tool"] = "tool"


type ChatMessage = SystemMessage | UserMessage | AssistantMessage | ToolMessage


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool that Home Assistant offers; `parameters` is a JSON Schema of type object."""

    name: str
    description: str
    parameters: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ExposedEntity:
    """An entity that Home Assistant exposes to the agent."""

    entity_id: str
    names: tuple[str, ...]
    domain: str
    area: str | None
    state: str | None


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One turn for an agent. The hub never executes a repeated id twice."""

    id: str
    client: str
    deadline: float
    conversation_id: str
    language: str
    instructions: str
    """What the user told the agent, apart from Home Assistant's own text; the system message holds both."""
    messages: tuple[ChatMessage, ...]
    tools: tuple[Tool, ...] = field(default=())
    entities: tuple[ExposedEntity, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class ChatCancel:
    """Nobody waits for the request any more."""

    id: str
    client: str
