"""Which ports the machine's services have, by their own settings. A new service is one line here."""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Literal

from appliance.node.serving import EVERYWHERE, LOOPBACK_HOST
from appliance.security.broker import is_node_of_another_hub, nodes_host
from appliance.settings import Settings
from appliance.settings.section import ports_of
from appliance.settings.vision import FRIGATE_PORT
from appliance.settings.zones import Service

_MDNS_PORT = 5353
_TAILSCALE_PORT = 41641


@dataclass(frozen=True, slots=True)
class Opening:
    """A port that a service listens on."""

    service: Service
    protocol: Literal["tcp", "udp"]
    port: int
    last: int = 0
    """The last one of several; the same as `port` when 0."""

    @property
    def ports(self) -> str:
        """The port or ports as nftables writes them."""
        return f"{self.port}-{self.last}" if self.last else str(self.port)


def openings(settings: Settings) -> tuple[Opening, ...]:
    """Return every port that is reachable from other machines once the firewall lets it."""
    return tuple(_openings(settings))


def openings_of_any_role(settings: Settings) -> tuple[Opening, ...]:
    """Return every port that some machine may need open which begins with these settings.

    An image's machines learn what they are at their first start. Behind a port that is open there is nothing unless a
    service was told to listen on it.
    """
    experts = ports_of(settings.node.expert_ports)
    found = {Opening("experts", "tcp", experts[0], experts[-1]), Opening("gateway", "tcp", settings.gateway.port)}
    for roles in (("hub", "expert"), ("expert",)):
        node = settings.node.model_copy(update={"roles": roles})
        found |= set(_openings(settings.model_copy(update={"node": node})))
    return tuple(found)


def _openings(settings: Settings) -> Iterator[Opening]:
    node, roles = settings.node, settings.node.roles
    yield Opening("ssh", "tcp", settings.deploy.port)
    yield Opening("mdns", "udp", _MDNS_PORT)
    if is_open(node.status_host, node.status_port):
        yield Opening("status", "tcp", node.status_port)
    if "hub" in roles:
        yield from _hub(settings)
    elif settings.broker.url is None:
        yield Opening("pairing", "tcp", settings.pairing.port)
    yield from _experts(settings)
    worker = settings.rpc_worker
    if worker.enabled and is_open(worker.host, worker.port):
        yield Opening("rpc-worker", "tcp", worker.port)
        yield Opening("rpc-worker", "tcp", worker.rpc_port)
    yield from _extras(settings)
    if settings.overlay.kind != "none":
        port = settings.overlay.port if settings.overlay.kind == "wireguard" else _TAILSCALE_PORT
        yield Opening("overlay", "udp", port)


def _experts(settings: Settings) -> Iterator[Opening]:
    place = EVERYWHERE if is_node_of_another_hub(settings) else LOOPBACK_HOST
    reached = [one for one in settings.experts.values() if not is_loopback(one.host or place)]
    if any(one.port == 0 for one in reached):
        ports = ports_of(settings.node.expert_ports)
        yield Opening("experts", "tcp", ports[0], ports[-1])
    for one in reached:
        if one.port:
            yield Opening("experts", "tcp", one.port)


def _extras(settings: Settings) -> Iterator[Opening]:
    roles, monitoring = settings.node.roles, settings.monitoring
    if monitoring.enabled and settings.overlay.kind != "none":
        yield Opening("metrics", "tcp", monitoring.node_exporter_port)
        if monitoring.grafana and "hub" in roles:
            yield Opening("metrics", "tcp", monitoring.grafana_port)
    if "vision" in roles and settings.vision.cameras:
        yield Opening("vision", "tcp", FRIGATE_PORT)


def _hub(settings: Settings) -> Iterator[Opening]:
    gateway, broker = settings.gateway, settings.broker
    if is_open(gateway.host, gateway.port):
        yield Opening("gateway", "tcp", gateway.port)
    if broker.url is not None:
        return
    if broker.own != "embedded":
        yield Opening("broker", "tcp", broker.nodes_port)
        if not is_loopback(broker.listen_host):
            yield Opening("broker", "tcp", broker.clients_port)
        return
    if is_open(broker.listen_host, broker.listen_port):
        yield Opening("broker", "tcp", broker.listen_port)
    if (host := nodes_host(broker)) is not None and is_open(host, broker.nodes_port):
        yield Opening("broker", "tcp", broker.nodes_port)


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is this machine's own."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_open(host: str, port: int) -> bool:
    """Whether other machines could reach it."""
    return port != 0 and not is_loopback(host)
