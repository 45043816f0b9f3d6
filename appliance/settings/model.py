"""The settings tree: immutable, typed, with the reason for each default beside it."""

import re
from collections.abc import Mapping
from ipaddress import AddressValueError, IPv4Address, IPv4Network, NetmaskValueError
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, field_validator, model_validator

from appliance.settings.backup import BackupSettings
from appliance.settings.certificates import CertificateSettings
from appliance.settings.console import ConsoleSettings
from appliance.settings.deploy import DeploySettings
from appliance.settings.monitoring import MonitoringSettings
from appliance.settings.network import NetworkSettings
from appliance.settings.overlay import OverlaySettings
from appliance.settings.pairing import PairingSettings
from appliance.settings.power import PowerSettings
from appliance.settings.section import Name, Port, PortRange, Role, Seconds, Section, check_together, conflict
from appliance.settings.system import SystemSettings
from appliance.settings.updates import UpdateSettings
from appliance.settings.vision import VisionSettings
from appliance.settings.waking import RecoverySettings, WakeSettings

Domain = Literal["home-control", "coding", "maths", "extraction", "chat"]

_EXTERNAL_FORM = "expected http://host or https://host, with :port and a path such as /v1 where there are any"
_URL_FORM = "expected mqtt://host or mqtts://host, with :port from 1 to 65535 where it is not the usual one"


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
    status_host: str = "127.0.0.1"
    """Where the node daemon answers /health and /metrics. Elsewhere than on loopback, /metrics wants the key that
    the daemon keeps in `secrets/node/metrics.key` of its state folder."""
    status_port: Port = 8101
    """Port of the daemon's /health and /metrics; 0 takes a free one, which the log names."""
    expert_ports: PortRange = "8110-8139"
    """Ports of experts that other machines can reach and that have no `experts.*.port`: each takes the first free one.
    A firewall opens them all."""
    supervisor: Literal["process", "systemd"] = "process"
    """Who runs the experts: the daemon, as its children, or systemd, as `rouse-expert@NAME.service`. The image sets
    systemd, which confines each of them; children need nothing installed."""


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
    own: Literal["embedded", "mosquitto"] | None = None
    """Which broker the hub has when `url` names none: one in its process, or a mosquitto beside it. When not set, it is
    mosquitto on machines that the deploys set up, the image's too, and otherwise one in the hub's process."""
    listen_host: str = "127.0.0.1"
    """Where the embedded broker listens. Loopback until the user opens it, because it has no TLS then."""
    listen_port: Port = 1883
    """Port of the embedded broker; 0 takes a free one."""
    listen_cert_file: Path | None = None
    """Certificate (PEM) of the embedded broker; with it, the listener speaks TLS only."""
    listen_key_file: Path | None = None
    """Key of the embedded broker's certificate (PEM)."""
    nodes_host: str | None = None
    """Where the embedded broker listens for nodes that were paired, with mutual TLS: `0.0.0.0` is everywhere. When not
    set, it is `listen_host`, unless that is loopback; then no other machine can be paired."""
    nodes_port: Port = 8883
    """Port for nodes that were paired, of the embedded broker (0 takes a free one) or of mosquitto."""
    clients_port: Port = 8884
    """Where the hub's own mosquitto listens, with TLS and passwords, for Home Assistant and others on other machines,
    once `listen_host` is no loopback address. Without encryption it listens on loopback only, at `listen_port`."""
    mosquitto_folder: Path | None = None
    """Folder into which the hub writes accounts, access lists and certificates for the mosquitto that `url` names, so
    that it can pair with nodes; see docs/certificates.md."""

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
            raise conflict("password", "set password or password_file, not both")
        check_together("cert_file", self.cert_file, "key_file", self.key_file)
        check_together("listen_cert_file", self.listen_cert_file, "listen_key_file", self.listen_key_file)
        if self.mosquitto_folder is not None and self.url is None:
            raise conflict("mosquitto_folder", "goes with url, which says where that mosquitto listens")
        if self.nodes_host is not None and self.url is not None:
            raise conflict("nodes_host", "is of the embedded broker, and url names another one")
        return self


class ExternalSettings(Section):
    """A server of OpenAI's API that is not one of the house's experts: llama-server, vLLM, Ollama."""

    url: str
    """Its base URL, which most often ends in `/v1`: `http://192.168.1.9:8080/v1`."""
    model: str | None = None
    """What the model is called there; the expert's own name when not set."""
    key: SecretStr | None = None
    """Its API key; prefer `key_file`."""
    key_file: Path | None = None
    """File whose first line is the API key. The key is sent to the host of `url` only."""
    ca_file: Path | None = None
    """CA certificates (PEM) that an https server's certificate is checked against; the system's when not set."""
    capabilities: tuple[Literal["chat", "completions", "embeddings", "rerank", "tools", "vision"], ...] = (
        "chat",
        "completions",
    )
    """What it can do. Tools are left out until you say so: many small models can't call them."""
    context: Annotated[int, Field(ge=256, le=16_777_216)] | None = None
    """Tokens that one request may use; prompts that can't fit go elsewhere."""
    slots: Annotated[int, Field(ge=1, le=4096)] = 1
    """Requests that it answers at the same time. It decides how the load is shared, and nothing is refused by it."""
    priority: Annotated[int, Field(ge=-100, le=100)] = -1
    """Its place among the experts that nobody has ranked. The house's own have 0, so that they come first."""
    health: str | None = None
    """Path on its host that a probe asks, such as `/health`; `/models` below the base URL when not set."""

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise ValueError(_EXTERNAL_FORM) from None
        if parts.username or parts.password:
            raise ValueError("must not hold a user or password: set key_file")
        if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0 or parts.query or parts.fragment:
            raise ValueError(_EXTERNAL_FORM)
        return url.rstrip("/")

    @field_validator("health")
    @classmethod
    def _check_health(cls, path: str | None) -> str | None:
        if path is not None and re.fullmatch(r"/[!-~]*", path) is None:
            raise ValueError("expected a path that begins with /, without spaces")
        return path

    @field_validator("key")
    @classmethod
    def _check_key(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None and re.fullmatch(r"[!-~]+", key.get_secret_value()) is None:
            raise ValueError("must be printable ASCII without spaces")
        return key

    @model_validator(mode="after")
    def _check_pairs(self) -> Self:
        if self.key is not None and self.key_file is not None:
            raise conflict("key", "set key or key_file, not both")
        return self


class GatewaySettings(Section):
    """The OpenAI-compatible front door."""

    host: str = "127.0.0.1"
    """Address to listen on. Loopback until the user opens it: it speaks plain HTTP."""
    port: Port = 8100
    """Port to listen on; 0 takes a free one."""
    fallbacks: tuple[Name, ...] = ()
    """Experts to ask, in order, when the chosen one is down; then `always_on`, then any other ready one."""
    always_on: Name | None = None
    """The small expert that is always there; it is asked after the fallbacks."""
    connect_timeout: Seconds = 2.0
    """How long a connection to an expert may take. A live expert in the house accepts within milliseconds."""
    first_token_timeout: Seconds = 120.0
    """How long an expert may take to its first token: a long prompt on an old machine takes a minute."""
    answer_timeout: Seconds = 600.0
    """How long an expert may take for an answer that is not streamed: its first byte comes with its last token."""
    stream_timeout: Seconds = 3600.0
    """How long a streamed answer may take to its end, however steadily it comes."""
    probe_interval: Seconds = 10.0
    """Time between probes of an expert that failed, give or take a quarter. One that is idle is probed three times
    less often, and one that answers requests never."""
    hedge_after: Seconds | None = None
    """When a short request has no answer after this time, a second expert is asked as well, and the first that
    answers wins. Off when not set, because on one machine both are slowed down."""
    hedge_max_bytes: Annotated[int, Field(ge=0)] = 4096
    """Longest prompt of a request that `hedge_after` applies to: reading a long one twice costs too much."""
    while_asleep: Literal["answer", "wait"] = "answer"
    """What becomes of a request whose first choice is on a machine that sleeps: `answer` asks those that are awake
    meanwhile, in the usual order, and wakes the machine for the next request; `wait` waits until it is awake. A request
    that names an expert always waits for it, and so does one that nobody who is awake can answer."""
    keep_alive_after: Seconds | None = None
    """When a streaming client has waited this long, for a machine that wakes or a model that loads, it is sent comments
    every ten seconds, so that it does not give up. They fix the status at 200: what fails later is an error event. Off
    when not set."""
    max_requests: Annotated[int, Field(ge=1, le=100_000)] = 512
    """Requests at the same time, those that wait included; a further one is answered 503 with Retry-After."""
    max_body_bytes: Annotated[int, Field(ge=1024)] = 32 * 1024 * 1024
    """Largest request body; it leaves room for images. No answer in one piece may be larger either."""
    externals: Mapping[Name, ExternalSettings] = Field(default_factory=dict)
    """They join the house's experts under these names."""


_WORKER_FORM = "expected address:port, such as 10.77.0.2:50053"


def _check_worker(worker: str) -> str:
    host, separator, port = worker.rpartition(":")
    try:
        IPv4Address(host)
    except AddressValueError:
        raise ValueError(_WORKER_FORM) from None
    if not separator or not port.isascii() or not port.isdigit() or not 1 <= int(port) <= 65535:
        raise ValueError(_WORKER_FORM)
    return worker


Worker = Annotated[str, AfterValidator(_check_worker)]
"""Numeric and IPv4, because ggml's RPC client knows nothing else."""


class ExpertSettings(Section):
    """One served model."""

    model: Path
    """GGUF file, absolute or relative to `paths.models`."""
    host: str | None = None
    """Address to listen on; the gateway reaches it there. When not set, it is every address on a node that was paired,
    where it asks for a certificate of the house, and loopback elsewhere."""
    port: Port = 0
    """Port to listen on; 0 takes a free one, of `node.expert_ports` where other machines can reach it. It is announced
    on the bus."""
    context: Annotated[int, Field(ge=256, le=1_048_576)] = 4096
    """Tokens that one request may use, prompt and answer together."""
    slots: Annotated[int, Field(ge=1, le=128)] = 4
    """Requests generated at the same time. More share the machine's speed and need more memory."""
    threads: Annotated[int, Field(ge=0, le=1024)] = 0
    """CPU threads; 0 means as many as a short self-benchmark found best when the model was first loaded here."""
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
    workers: tuple[Worker, ...] = ()
    """Other machines that hold layers of the model: `address:port` as set in their `[rpc_worker]`. The expert
    starts when all of them answer; a worker serves one expert."""
    worker_layers: Annotated[int, Field(ge=-1)] = -1
    """Layers that the workers hold, shared out by their free memory; -1 means all. The rest stays here."""
    embeddings: bool = False
    """Whether to answer /v1/embeddings and /v1/rerank; it costs a second context."""
    truncation: Literal["disabled", "auto"] = "disabled"
    """What becomes of a conversation that is longer than the context, where a request does not say: refused, or
    (`auto`) shortened by messages from its middle."""
    projector: str = ""
    """GGUF file of the model's image projector; with it, chats may contain images. Empty is none."""
    purposes: tuple[Domain, ...] = ()
    """What it is made for; the router asks it for texts about that when no rule says otherwise."""

    @model_validator(mode="after")
    def _check_workers(self) -> Self:
        if self.workers and self.gpu_layers:
            raise conflict("gpu_layers", "with workers, set worker_layers instead; this machine's GPU stays unused")
        return self


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


class RpcWorkerSettings(Section):
    """Lends this machine's processor or GPU, and memory, to an expert on another machine; see docs/distributed.md.

    ggml's RPC protocol has no authentication and no encryption: whoever reaches `rpc_port` can take over the
    worker's process. It therefore listens on loopback or in an overlay network (WireGuard, Tailscale) only.
    """

    enabled: bool = False
    """Whether the node daemon runs a worker."""
    host: str = "127.0.0.1"
    """IPv4 address to listen on: loopback, or one in `overlay`."""
    overlay: tuple[str, ...] = ()
    """Private networks that only your own machines are in, such as `10.77.0.0/24`."""
    port: Port = 50053
    """Port of health and metrics, over HTTP and with the expert key; this is what experts list as a worker."""
    rpc_port: Annotated[int, Field(ge=1, le=65535)] = 50052
    """Port of ggml's RPC server."""
    threads: Annotated[int, Field(ge=0, le=1024)] = 0
    """CPU threads; 0 means all physical cores."""

    @field_validator("overlay")
    @classmethod
    def _check_overlay(cls, overlay: tuple[str, ...]) -> tuple[str, ...]:
        for text in overlay:
            try:
                network = IPv4Network(text)
            except (AddressValueError, NetmaskValueError, ValueError):
                raise ValueError(f"{text}: expected an IPv4 network such as 10.77.0.0/24") from None
            if not any(network.subnet_of(private) for private in _PRIVATE):
                raise ValueError(f"{text}: is not a private network ({', '.join(map(str, _PRIVATE))})")
        return overlay

    @model_validator(mode="after")
    def _check_host(self) -> Self:
        try:
            address = IPv4Address(self.host)
        except AddressValueError:
            raise conflict("host", "expected an IPv4 address; ggml's RPC server knows nothing else") from None
        if not address.is_loopback and not any(address in IPv4Network(network) for network in self.overlay):
            raise conflict(
                "host",
                "must be loopback or in one of the networks of overlay, because ggml's RPC has no authentication",
            )
        if self.port == self.rpc_port:
            raise conflict("port", "port and rpc_port must differ")
        return self


_PRIVATE = tuple(map(IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")))
"""RFC 1918, and RFC 6598, which Tailscale uses."""


class AgentSettings(Section):
    """A persona that takes chat requests."""

    title: str = "Home"
    """What people call it."""
    description: str = "Controls the house and answers questions."
    """One line for the user interface."""
    expert: str = "auto"
    """Expert that answers, or `auto` to let the gateway choose."""
    fallbacks: tuple[Name, ...] = ()
    """Experts to ask after that one, in order, before those of `gateway.fallbacks`."""
    while_asleep: Literal["answer", "wait"] | None = None
    """What to do while the machine of that expert sleeps: let others `answer`, or `wait` for it. When not set, what
    `gateway.while_asleep` says."""
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
    rpc_worker: RpcWorkerSettings = RpcWorkerSettings()
    agents: Mapping[Name, AgentSettings] = Field(default_factory=lambda: {"home": AgentSettings()})
    """Agents of the hub, by name."""
    routing: RoutingSettings = RoutingSettings()
    log: LogSettings = LogSettings()
    system: SystemSettings = SystemSettings()
    network: NetworkSettings = NetworkSettings()
    pairing: PairingSettings = PairingSettings()
    monitoring: MonitoringSettings = MonitoringSettings()
    backup: BackupSettings = BackupSettings()
    vision: VisionSettings = VisionSettings()
    overlay: OverlaySettings = OverlaySettings()
    deploy: DeploySettings = DeploySettings()
    console: ConsoleSettings = ConsoleSettings()
    certificates: CertificateSettings = CertificateSettings()
    wake: WakeSettings = WakeSettings()
    recovery: RecoverySettings = RecoverySettings()
    power: PowerSettings = PowerSettings()
    updates: UpdateSettings = UpdateSettings()
