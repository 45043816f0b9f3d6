"""Whom a machine talks to in the overlay."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_interface

from pyinfra_deploys.errors import DeployError
from pyinfra_deploys.inventory import Machine


@dataclass(frozen=True, slots=True)
class Peer:
    """Another machine, as WireGuard wants it."""

    name: str
    key: str
    address: str
    endpoint: str
    keepalive: int


def peers(
    machine: Machine, house: Sequence[Machine], key_of: Callable[[str], str | None]
) -> tuple[tuple[Peer, ...], tuple[str, ...]]:
    """Return the others that are in the same overlay, and the names of those whose keys nobody knows yet.

    Raises:
        DeployError: two machines have one address, or are in different networks.
    """
    own = ip_interface(str(machine.settings.overlay.address))
    found, missing = [], []
    taken = {own.ip: machine.name}
    for other in house:
        overlay = other.settings.overlay
        if other.name == machine.name or overlay.kind != "wireguard":
            continue
        address = ip_interface(str(overlay.address))
        if address.network != own.network:
            raise DeployError(f"overlay.address of {other.name} is not in {own.network}, where {machine.name} is")
        if address.ip in taken:
            raise DeployError(f"overlay.address of {other.name} is that of {taken[address.ip]}")
        taken[address.ip] = other.name
        key = key_of(other.name)
        if key is None:
            missing.append(other.name)
            continue
        host = overlay.endpoint or other.settings.deploy.address or other.name
        found.append(
            Peer(
                name=other.name,
                key=key,
                address=f"{address.ip}/{address.max_prefixlen}",
                endpoint=f"{bracketed(host)}:{overlay.port}",
                keepalive=machine.settings.overlay.keepalive,
            )
        )
    return tuple(found), tuple(missing)


def bracketed(host: str) -> str:
    """Write an address of IPv6 so that a port can follow."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host
