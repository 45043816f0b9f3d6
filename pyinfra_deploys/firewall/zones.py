"""The zones as the firewall needs them: interfaces, networks, ports."""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_interface, ip_network

from appliance.settings import Settings
from appliance.settings.zones import ZoneSettings
from pyinfra_deploys.errors import DeployError
from pyinfra_deploys.firewall.openings import Opening, openings
from pyinfra_deploys.reach import Way

TAILSCALE_INTERFACE = "tailscale0"


@dataclass(frozen=True, slots=True)
class Zone:
    """One zone.

    Attributes:
        name: its name.
        interfaces: packets that come in by them belong to it; all others' when empty.
        networks: packets may come from them; from anywhere when empty.
        ports: what is open, sorted.
        ping: whether echo requests are answered.
    """

    name: str
    interfaces: tuple[str, ...]
    networks: tuple[IPv4Network | IPv6Network, ...]
    ports: tuple[Opening, ...]
    ping: bool

    @property
    def v4(self) -> tuple[str, ...]:
        """The networks of IPv4."""
        return tuple(str(network) for network in self.networks if network.version == 4)

    @property
    def v6(self) -> tuple[str, ...]:
        """The networks of IPv6."""
        return tuple(str(network) for network in self.networks if network.version == 6)

    def takes(self, interface: str) -> bool:
        """Whether packets that come in by an interface belong to the zone."""
        return any(
            interface == name or (name.endswith("*") and interface.startswith(name[:-1])) for name in self.interfaces
        )

    def lets_in(self, way: Way) -> bool:
        """Whether an SSH connection may begin."""
        from_there = not self.networks or any(way.client in network for network in self.networks)
        return from_there and any(port.service == "ssh" and port.port == way.port for port in self.ports)


def zones(settings: Settings, offered: Sequence[Opening] | None = None) -> tuple[Zone, Zone]:
    """Return overlay and underlay, with the ports that each lets in of those offered: by default, of `openings`."""
    offered = openings(settings) if offered is None else offered
    inner, outer = settings.network.zones.overlay, settings.network.zones.underlay
    interfaces, networks = inner.interfaces, tuple(ip_network(network) for network in inner.networks)
    if settings.overlay.kind == "wireguard" and settings.overlay.address is not None:
        interfaces = interfaces or (settings.overlay.interface,)
        networks = networks or (ip_interface(settings.overlay.address).network,)
    elif settings.overlay.kind == "tailscale":
        interfaces = interfaces or (TAILSCALE_INTERFACE,)
    return (
        _zone("overlay", inner, offered, interfaces, networks),
        _zone("underlay", outer, offered, outer.interfaces, tuple(ip_network(network) for network in outer.networks)),
    )


def refuse_cut(zones: Sequence[Zone], way: Way) -> None:
    """Make sure that the connection of this run could be made again.

    Raises:
        DeployError: it could not.
    """
    overlay, underlay = zones
    zone = overlay if overlay.takes(way.interface) else underlay
    belongs = zone is overlay or not underlay.interfaces or underlay.takes(way.interface)
    spoofed = zone is underlay and overlay.interfaces and any(way.client in network for network in overlay.networks)
    if not belongs or spoofed or not zone.lets_in(way):
        raise DeployError(
            f"the firewall would cut off this connection: SSH from {way.client} by {way.interface or 'an interface'} "
            f"to port {way.port} is in no zone that lets it in. Look at network.zones.{zone.name} "
            "(interfaces, networks, services) and deploy.port"
        )


def _zone(
    name: str,
    settings: ZoneSettings,
    offered: Sequence[Opening],
    interfaces: tuple[str, ...],
    networks: tuple[IPv4Network | IPv6Network, ...],
) -> Zone:
    ports = {opening for opening in offered if opening.service in settings.services}
    ordered = tuple(sorted(ports, key=lambda opening: (opening.service, opening.protocol, opening.port)))
    return Zone(name, interfaces, networks, ordered, "ping" in settings.services)
