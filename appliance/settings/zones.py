"""Who may reach which service of the machine: the firewall's zones."""

import re
from ipaddress import ip_network
from typing import Literal

from pydantic import field_validator

from appliance.settings.section import Section

Service = Literal[
    "broker",
    "experts",
    "gateway",
    "mdns",
    "metrics",
    "overlay",
    "pairing",
    "ping",
    "rpc-worker",
    "ssh",
    "status",
    "vision",
]
"""What can be opened; each service's own port setting says where it listens."""

_INTERFACE = re.compile(r"[A-Za-z0-9_.-]{1,15}|[A-Za-z0-9_.-]{1,14}\*")
_PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "fc00::/7", "fe80::/10")


class ZoneSettings(Section):
    """One zone: packets that come in by its interfaces, from its networks, may reach its services."""

    interfaces: tuple[str, ...] = ()
    """Names of interfaces, such as `enp3s0`; a `*` at the end stands for any rest."""
    networks: tuple[str, ...] = ()
    """Networks that packets may come from, such as `192.168.1.0/24`; anywhere when empty."""
    services: tuple[Service, ...] = ()
    """What is open to the zone, as far as the machine has it and it does not listen on loopback only."""

    @field_validator("interfaces")
    @classmethod
    def _check_interfaces(cls, interfaces: tuple[str, ...]) -> tuple[str, ...]:
        for interface in interfaces:
            if _INTERFACE.fullmatch(interface) is None:
                raise ValueError(f"{interface!r}: expected the name of an interface, such as enp3s0 or wl*")
        return interfaces

    @field_validator("networks")
    @classmethod
    def _check_networks(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        for network in networks:
            try:
                ip_network(network)
            except ValueError:
                raise ValueError(f"{network!r}: expected a network such as 192.168.1.0/24 or fd00::/8") from None
        return tuple(str(ip_network(network)) for network in networks)


class UnderlaySettings(ZoneSettings):
    """The network that the machine is plugged into: the home network, by which it is also provisioned."""

    interfaces: tuple[str, ...] = ()
    """Names of interfaces, such as `enp3s0`; when empty, all that are in no other zone."""
    networks: tuple[str, ...] = _PRIVATE
    """Networks that packets may come from. Private and link-local ones, because a machine with a public IPv6 address
    can be reached by the whole world otherwise; anywhere when empty."""
    services: tuple[Service, ...] = (
        "broker",
        "experts",
        "gateway",
        "mdns",
        "overlay",
        "pairing",
        "ping",
        "ssh",
        "vision",
    )
    """What is open to the home network, as far as the machine has it and it does not listen on loopback only. The
    experts of a paired node answer nobody but its hub and who may watch them."""


class OverlayZoneSettings(ZoneSettings):
    """The network that only the house's own machines are in."""

    interfaces: tuple[str, ...] = ()
    """Names of interfaces; when empty, that of `overlay`."""
    networks: tuple[str, ...] = ()
    """Networks that packets may come from; when empty, that of `overlay.address`. From elsewhere, packets with such an
    address are dropped."""
    services: tuple[Service, ...] = (
        "broker",
        "experts",
        "gateway",
        "metrics",
        "ping",
        "rpc-worker",
        "ssh",
        "status",
        "vision",
    )
    """What is open to the overlay, as far as the machine has it and it does not listen on loopback only."""


class ZonesSettings(Section):
    """Who may reach which service; see docs/decisions/firewall-zones.md."""

    underlay: UnderlaySettings = UnderlaySettings()
    overlay: OverlayZoneSettings = OverlayZoneSettings()
