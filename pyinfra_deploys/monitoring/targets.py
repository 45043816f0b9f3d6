"""Whom Prometheus asks, and by which address, as the settings of the house's machines have it."""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_interface

from appliance.settings import Settings
from pyinfra_deploys.firewall.openings import is_loopback
from pyinfra_deploys.inventory import Machine
from pyinfra_deploys.overlay.peers import bracketed

_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what is asked instead on this machine


@dataclass(frozen=True, slots=True)
class Target:
    """One address that answers with metrics."""

    node: str
    address: str
    key: bool = False
    """Whether it wants the node's key."""


def overlay_address(settings: Settings) -> str | None:
    """Return the machine's address in the overlay, as far as the settings know it."""
    overlay = settings.overlay
    if overlay.kind == "none" or overlay.address is None:
        return None
    return str(ip_interface(overlay.address).ip)


def gateway(hub: Settings) -> str:
    """Return where the hub's gateway answers on its own machine."""
    host = hub.gateway.host
    return f"{bracketed(_WILDCARDS.get(host, host))}:{hub.gateway.port}"


def daemons(hub: Machine, house: Sequence[Machine]) -> tuple[Target, ...]:
    """Return the node daemons: the hub's own, and those of others that can be reached."""
    found = []
    for machine in house:
        node = machine.settings.node
        own = machine.name == hub.name
        if is_loopback(node.status_host):
            if own:
                found.append(Target(machine.name, f"{bracketed(node.status_host)}:{node.status_port}"))
            continue
        host = node.status_host
        if host in _WILDCARDS:
            host = _WILDCARDS[host] if own else overlay_address(machine.settings) or machine.name
        found.append(Target(machine.name, f"{bracketed(host)}:{node.status_port}", key=True))
    return tuple(found)


def exporters(hub: Machine, house: Sequence[Machine]) -> tuple[Target, ...]:
    """Return the node exporters: the hub's own, and those of others in the overlay."""
    found = []
    for machine in house:
        monitoring = machine.settings.monitoring
        if not monitoring.enabled:
            continue
        host = listening(machine.settings)[-1]
        if machine.name != hub.name and is_loopback(host):
            continue
        if host == "":
            host = "127.0.0.1" if machine.name == hub.name else machine.name
        found.append(Target(machine.name, f"{bracketed(host)}:{monitoring.node_exporter_port}"))
    return tuple(found)


def listening(settings: Settings) -> tuple[str, ...]:
    """Return the addresses that a machine's node exporter listens on.

    Tailscale gives an address that the settings do not know, so there it is every address, and the firewall lets only
    the overlay in.
    """
    if settings.overlay.kind == "tailscale" and settings.overlay.address is None:
        return ("",)
    address = overlay_address(settings)
    return ("127.0.0.1",) if address is None else ("127.0.0.1", address)
