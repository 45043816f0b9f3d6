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


ImageVersion = Annotated[str, probatio.Match(r"[0-9][0-9A-Za-z.~]{0,23}\Z")]
UpdateState = Literal[
    "idle", "checking", "downloading", "installing", "rebooting", "verifying", "rolled_back", "failed"
]


@dataclass(frozen=True, slots=True)
class NodeUpdate:
    """The image that a node runs, and what becomes of the next one."""

    installed: ImageVersion
    state: UpdateState
    latest: ImageVersion | None = None
    """The newest that there is, `installed` if none is newer; None where nobody has looked yet."""
    version: ImageVersion | None = None
    """What is being installed, or was not."""
    progress: Fraction | None = None
    detail: Annotated[str, probatio.Length(max=1000)] = ""
    error: Annotated[str, probatio.Length(max=1000)] | None = None
    notes_url: Annotated[str, probatio.Match(r"https?://\S{1,500}\Z")] | None = None
    command: RequestId | None = None
    """The last command that was taken."""


@dataclass(frozen=True, slots=True)
class UpdateCommand:
    """A wish for a node's image; one that is delivered twice is carried out once."""

    id: str
    action: Literal["install"]
    version: str | None = None
    downgrade: bool = False


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


PowerState = Literal["awake", "going_to_sleep", "asleep", "off"]


@dataclass(frozen=True, slots=True)
class NodePower:
    """Whether a node is awake, and why."""

    state: PowerState
    reason: str = ""
    blockers: Annotated[tuple[str, ...], _tuple] = ()
    """What keeps it from sleeping, a sentence each."""


@dataclass(frozen=True, slots=True)
class NodeEnergy:
    """What a node uses, and what its sleep has saved."""

    source: Literal["rapl", "ipmi", "plug", "estimate"]
    watts: Annotated[float, _number, probatio.Range(min=0, max=100_000)]
    used_kwh: Duration
    saved_kwh: Duration
    """Against a machine that is always on."""
    since: Duration
    """When counting began."""
    baseline: Literal["measured", "settings"] = "settings"


@dataclass(frozen=True, slots=True)
class PlugCommand:
    """The hub asks for a node's smart plug."""

    id: RequestId
    action: Literal["cycle", "on"]
    deadline: Duration
    """When nobody waits any more."""
    off_seconds: Annotated[float, _number, probatio.Range(min=1, max=300)] = 10.0


@dataclass(frozen=True, slots=True)
class RecoveryStep:
    """One thing that was tried to bring a node back."""

    rung: str
    outcome: str
    evidence: str = ""


@dataclass(frozen=True, slots=True)
class RepairNotice:
    """A node that is missed and could not be brought back."""

    node: Slug
    problem: Literal["lost", "did_not_wake", "unreachable"]
    summary: str
    steps: Annotated[list[RecoveryStep], probatio.Length(max=20)] = field(default_factory=list)


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


@dataclass(frozen=True, slots=True)
class PowerCommand:
    """A wish for a node."""

    id: str
    action: Literal["sleep", "wake", "recover"]
    reason: str


@dataclass(frozen=True, slots=True)
class WakeHint:
    """Something happened after which an agent is likely to be asked soon; `agent` may be left out for all."""

    kind: Literal["speech", "arrival", "other"]
    agent: str | None = None
    area: str | None = None


@dataclass(frozen=True, slots=True)
class PlugResult:
    """What became of a plug command."""

    id: str
    ok: bool
    message: str
    watts: float | None = None


@dataclass(frozen=True, slots=True)
class PlugReading:
    """What a node's smart plug measures."""

    watts: float
