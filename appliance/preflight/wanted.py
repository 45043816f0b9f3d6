"""What a machine is meant to do, as far as checks depend on it: from its settings and the model catalogue."""

from dataclasses import dataclass, field
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from appliance.models.advice import memory_need
from appliance.models.catalogue import Catalogue
from appliance.settings.model import ExpertSettings, Settings
from appliance.settings.section import Role

_MQTT_PORTS = {"mqtt": 1883, "mqtts": 8883}


@dataclass(frozen=True, slots=True)
class WantedExpert:
    """A model that the machine is to serve.

    Attributes:
        name: the expert's.
        file: where the model is to be, an absolute path or one below the models folder.
        memory: bytes of memory; None where the model is not in the catalogue.
        disk: bytes of the model's file; None where it is not in the catalogue.
        disk_for_prefixes: bytes of disk beside that.
        on_gpu: whether layers are to be on a GPU.
    """

    name: str
    file: str
    memory: int | None
    disk: int | None
    disk_for_prefixes: int = 0
    on_gpu: bool = False


@dataclass(frozen=True, slots=True)
class WantedPort:
    """A TCP port that a role listens on."""

    port: int
    key: str
    """The setting that says so."""
    role: Role | None
    """None where every role needs it."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Whom the machine must reach: the broker."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """Everything."""

    roles: tuple[Role, ...] | None = None
    """None where nobody has decided yet."""
    state: str = "/var/lib/rouse"
    models: str = "/var/lib/rouse/models"
    experts: tuple[WantedExpert, ...] = ()
    ports: tuple[WantedPort, ...] = ()
    peer: Peer | None = None
    own_mosquitto: bool = False
    """Whether a mosquitto there is, or will be, the hub's own broker."""
    smallest: int = 0
    """Bytes of memory that the smallest model of the catalogue for chat takes."""
    models_by_memory: tuple[tuple[str, int], ...] = field(default=(), repr=False)
    """Models of the catalogue for chat, and the bytes of memory that each takes; largest first."""


def wanted_of(settings: Settings, catalogue: Catalogue, *, roles: tuple[Role, ...] | None) -> Wanted:
    """Return what a machine with these settings is to do."""
    usual = ExpertSettings(model=PurePosixPath("any").as_posix())  # type: ignore[arg-type]  # pydantic makes it a path
    sizes = {
        model.id: need
        for model in catalogue.models
        if "chat" in model.purposes and (need := memory_need(model, usual.context, usual.slots)[0]) is not None
    }
    by_memory = tuple(sorted(sizes.items(), key=lambda item: -item[1]))
    return Wanted(
        roles=roles,
        state=str(settings.paths.state),
        models=str(settings.paths.models),
        experts=tuple(_expert(name, expert, settings, catalogue) for name, expert in settings.experts.items()),
        ports=tuple(_ports(settings)),
        peer=_peer(settings),
        own_mosquitto=settings.broker.url is None and settings.broker.own != "embedded",
        smallest=by_memory[-1][1] if by_memory else 0,
        models_by_memory=by_memory,
    )


def _expert(name: str, expert: ExpertSettings, settings: Settings, catalogue: Catalogue) -> WantedExpert:
    listed = catalogue.of_file(expert.model.name)
    memory = memory_need(listed[0], expert.context, expert.slots)[0] if listed is not None else None
    return WantedExpert(
        name=name,
        file=str(settings.paths.models / expert.model),
        memory=memory + expert.memory_for_prefixes if memory is not None else None,
        disk=listed[1].estimated_size if listed is not None else None,
        disk_for_prefixes=expert.disk_for_prefixes,
        on_gpu=expert.gpu_layers != 0,
    )


def _ports(settings: Settings) -> list[WantedPort]:
    ports = [WantedPort(settings.node.status_port, "node.status_port", None)]
    if settings.broker.url is None:
        ports.append(WantedPort(settings.broker.listen_port, "broker.listen_port", "hub"))
        if settings.broker.own != "embedded":
            ports.append(WantedPort(settings.broker.nodes_port, "broker.nodes_port", "hub"))
    ports.append(WantedPort(settings.gateway.port, "gateway.port", "hub"))
    if settings.broker.url is None and "hub" not in settings.node.roles:
        ports.append(WantedPort(settings.pairing.port, "pairing.port", None))
    ports += [WantedPort(expert.port, f"experts.{name}.port", "expert") for name, expert in settings.experts.items()]
    if settings.rpc_worker.enabled:
        ports.append(WantedPort(settings.rpc_worker.port, "rpc_worker.port", "expert"))
        ports.append(WantedPort(settings.rpc_worker.rpc_port, "rpc_worker.rpc_port", "expert"))
    return [port for port in ports if port.port]


def _peer(settings: Settings) -> Peer | None:
    if settings.broker.url is None:
        return None
    parts = urlsplit(settings.broker.url)
    return Peer(parts.hostname or "", parts.port or _MQTT_PORTS[parts.scheme])
