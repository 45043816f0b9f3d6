"""The settings tree: immutable, typed, with the reason for each default beside it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

NAME_PATTERN = "^[a-z0-9][a-z0-9_-]{0,62}$"
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False, json_schema_extra={"unit": "seconds"})]
Role = Literal["hub", "expert", "voice", "vision"]
Domain = Literal["home-control", "coding", "maths", "extraction", "chat"]

_URL_FORM = "expected mqtt://host or mqtts://host, with :port from 1 to 65535 where it is not the usual one"


class Section(BaseModel):
    """Base of all sections: frozen, and an unknown key is an error rather than a silent typo."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class NodeSettings(Section):
    """The machine."""

    name: Name | None = None
    """Its name on the bus; the host name when not set."""
    title: str | None = None
    """What people call it; its name when not set."""
    roles: tuple[Role, ...] = ("hub", "expert")
    """What it does. One machine alone is both, so that a first flash gives a working house."""
    groups: tuple[Name, ...] = ()
    """Group files to read, later ones stronger; `all` is always read first."""
    telemetry_interval: Seconds = 10.0
    """Time between telemetry messages. Ten seconds is what a dashboard needs and costs nothing."""


class PathSettings(Section):
    """Where things are kept."""

    state: Path = Path("/var/lib/rouse")
    """Everything that must outlive a restart, secrets included."""
    models: Path = Path("/var/lib/rouse/models")
    """GGUF files; a relative `experts.*.model` is looked up here."""


class BrokerSettings(Section):
    """The MQTT broker: embedded in the hub unless a URL names another."""

    url: str | None = None
    """`mqtt://host[:port]` or `mqtts://host[:port]`. Without it the hub starts its own broker."""
    username: str | None = None
    """User at the external broker."""
    password: SecretStr | None = None
    """Password at the external broker; prefer `password_file`."""
    password_file: Path | None = None
    """File whose first line is the password."""
    ca_file: Path | None = None
    """CA certificates (PEM) that the broker's certificate is checked against; the system's when not set."""
    cert_file: Path | None = None
    """Client certificate (PEM), for a broker that asks for one."""
    key_file: Path | None = None
    """Key of the client certificate (PEM)."""
    listen_host: str = "127.0.0.1"
    """Where the embedded broker listens. Loopback until the user opens it, because it has no TLS then."""
    listen_port: Port = 1883
    """Port of the embedded broker; 0 takes a free one."""
    listen_cert_file: Path | None = None
    """Certificate (PEM) of the embedded broker; with it, the listener speaks TLS only."""
    listen_key_file: Path | None = None
    """Key of the embedded broker's certificate (PEM)."""

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str | None) -> str | None:
        if url is None:
            return None
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise ValueError(_URL_FORM) from None
        if parts.username or parts.password:
            raise ValueError("must not hold a user or password: set username and password_file")
        rest = parts.path.strip("/") or parts.query or parts.fragment
        if parts.scheme not in {"mqtt", "mqtts"} or not parts.hostname or port == 0 or rest:
            raise ValueError(_URL_FORM)
        return url

    @model_validator(mode="after")
    def _check_pairs(self) -> Self:
        if self.password is not None and self.password_file is not None:
            raise _conflict("password", "set password or password_file, not both")
        _check_together("cert_file", self.cert_file, "key_file", self.key_file)
        _check_together("listen_cert_file", self.listen_cert_file, "listen_key_file", self.listen_key_file)
        return self


def _check_together(one: str, one_value: object, other: str, other_value: object) -> None:
    if (one_value is None) != (other_value is None):
        present = other if one_value is None else one
        raise _conflict(present, f"{one} and {other} go together")


def _conflict(key: str, message: str) -> PydanticCustomError:
    """Return an error that names the key of the section at which to say it."""
    return PydanticCustomError("conflict", "{message}", {"key": key, "message": message})


class GatewaySettings(Section):
    """The OpenAI-compatible front door."""

    host: str = "127.0.0.1"
    """Address to listen on. Loopback until the user opens it: it speaks plain HTTP."""
    port: Port = 8100
    """Port to listen on; 0 takes a free one."""
    fallbacks: tuple[Name, ...] = ()
    """Experts to try, in order, when the chosen one is down; then any other ready one."""
    connect_timeout: Seconds = 2.0
    """How long a connection to an expert may take. A live expert in the house accepts within milliseconds."""
    first_token_timeout: Seconds = 120.0
    """How long an expert may take to its first token: a long prompt on an old machine takes a minute."""
    answer_timeout: Seconds = 600.0
    """How long an expert may take for an answer that is not streamed: its first byte comes with its last token."""
    max_body_bytes: Annotated[int, Field(ge=1024)] = 32 * 1024 * 1024
    """Largest request body; it leaves room for images."""


class ExpertSettings(Section):
    """One served model."""

    model: Path
    """GGUF file, absolute or relative to `paths.models`."""
    host: str = "127.0.0.1"
    """Address to listen on; the gateway reaches it there."""
    port: Port = 0
    """Port to listen on; 0 takes a free one, which is announced on the bus."""
    context: Annotated[int, Field(ge=256, le=1_048_576)] = 4096
    """Tokens that one request may use, prompt and answer together."""
    slots: Annotated[int, Field(ge=1, le=256)] = 4
    """Requests generated at the same time. More share the machine's speed and need more memory."""
    threads: Annotated[int, Field(ge=0, le=1024)] = 0
    """CPU threads; 0 means all physical cores."""
    batch: Annotated[int, Field(ge=32, le=8192)] = 256
    """Tokens in one step at most; a longer prompt is read in several steps."""
    queue: Annotated[int, Field(ge=0, le=10_000)] = 64
    """Requests that may wait for a slot before the expert answers 503."""
    stall_factor: Annotated[float, Field(ge=1.1, le=100)] = 2.5
    """How many times longer a step may take because another request's prompt is being read in it. Less keeps running
    answers flowing; more lets a new request start sooner."""
    memory_for_prefixes: Annotated[int, Field(ge=0)] = 256 * 1024 * 1024
    """Bytes of memory for the beginnings of prompts that are not in use but may come again."""
    disk_for_prefixes: Annotated[int, Field(ge=0)] = 1024 * 1024 * 1024
    """Bytes on disk for frequent beginnings of prompts, so that they outlive a restart; 0 keeps none. They hold what
    was said to the model in a form that can be turned back into text: the folder belongs to the service's user only."""
    gpu_layers: Annotated[int, Field(ge=-1)] = 0
    """Layers to put on a GPU, where the build has one; -1 means all."""
    embeddings: bool = False
    """Whether to answer /v1/embeddings; it costs a second context."""
    purposes: tuple[Domain, ...] = ()
    """What it is made for; the router asks it for texts about that when no rule says otherwise."""


class RoutingRules(Section):
    """Which experts to ask for texts about a domain, best first, while no trained router decides."""

    home_control: tuple[Name, ...] = ()
    """Commands to the house and questions about it."""
    coding: tuple[Name, ...] = ()
    """Programs and scripts."""
    maths: tuple[Name, ...] = ()
    """Sums and equations."""
    extraction: tuple[Name, ...] = ()
    """Taking data out of a text."""
    chat: tuple[Name, ...] = ()
    """Everything else."""


class RoutingSettings(Section):
    """How an expert is chosen for a request to `auto`."""

    rules: RoutingRules = RoutingRules()


class AgentSettings(Section):
    """A persona that takes chat requests."""

    title: str = "Home"
    """What people call it."""
    description: str = "Controls the house and answers questions."
    """One line for the user interface."""
    expert: str = "auto"
    """Expert that answers, or `auto` to let the gateway choose."""
    prompt: str = ""
    """Instructions put before those that the user gave in Home Assistant."""
    prompt_style: Literal["compact", "full"] = "compact"
    """`compact` describes the house in one line a device, which small models follow and old machines read in a
    second; `full` passes on all that Home Assistant says, for models of several billion parameters."""
    examples: bool = True
    """Whether the compact style shows the model a few worked examples of tool calls; small models need them."""
    languages: tuple[str, ...] = ("*",)
    """BCP 47 tags it answers in; `*` means any."""
    control: bool = True
    """Whether it may call tools."""
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    """Sampling temperature; 0 is greedy, which small models need to call tools reliably."""
    repeat_penalty: Annotated[float, Field(ge=0.5, le=2)] = 1.1
    """Penalty on repeated tokens; above 1 it stops small models from looping."""
    max_tokens: Annotated[int, Field(ge=1, le=65_536)] = 256
    """Longest answer, in tokens: a spoken answer is short."""


class LogSettings(Section):
    """Logging to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe level that is written."""


class Settings(Section):
    """Everything that can be set, by section."""

    node: NodeSettings = NodeSettings()
    paths: PathSettings = PathSettings()
    broker: BrokerSettings = BrokerSettings()
    gateway: GatewaySettings = GatewaySettings()
    experts: Mapping[Name, ExpertSettings] = Field(default_factory=dict)
    """Experts of this node, by name."""
    agents: Mapping[Name, AgentSettings] = Field(default_factory=lambda: {"home": AgentSettings()})
    """Agents of the hub, by name."""
    routing: RoutingSettings = RoutingSettings()
    log: LogSettings = LogSettings()
