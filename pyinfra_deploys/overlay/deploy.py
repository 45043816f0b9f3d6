"""Converges the overlay network. Keys come first on every machine, so that each can be told the others' public ones."""

from pathlib import Path

from pyinfra import host, inventory, logger
from pyinfra.api import deploy

from pyinfra_deploys import generated, packages, systemd
from pyinfra_deploys.overlay import tailscale
from pyinfra_deploys.overlay.keys import GROUP, PRIVATE_KEY, KnownKeys, key_on, private_key
from pyinfra_deploys.overlay.operations import networkd_enabled, taken_by_networkd
from pyinfra_deploys.overlay.peers import peers
from pyinfra_deploys.target import everyone, is_chroot, is_dry, machine, settings

_TEMPLATES = Path(__file__).parent / "templates"
_NETDEV = "/etc/systemd/network/50-rouse-overlay.netdev"
_NETWORK = "/etc/systemd/network/50-rouse-overlay.network"


@deploy("Overlay network: keys")
def overlay_keys() -> None:
    """Have a private key. A folder gets none: what is made of it may become many machines."""
    if settings().overlay.kind == "wireguard" and not is_chroot():
        packages.installed("wireguard-tools")
        private_key(name="Make the private key")


@deploy("Overlay network")
def overlay() -> None:
    """Have the overlay that the settings want, or none.

    Raises:
        DeployError: the machines don't go together, or what Tailscale needs is not there.
    """
    kind = settings().overlay.kind
    if kind == "wireguard" and not is_chroot():
        _wireguard()
        return
    gone = [generated.absent(_NETDEV), generated.absent(_NETWORK)]
    taken_by_networkd(name="Take the overlay down", interface=settings().overlay.interface, changed=gone)
    if kind == "tailscale":
        tailscale.deployed()


def _wireguard() -> None:
    known = KnownKeys(host.data.config_dir)
    own = key_on(host)
    if own is not None and not is_dry():
        known.remember(machine().name, own)
    connected = {other.data.machine.name: other for other in inventory if other.connected}

    def key_of(name: str) -> str | None:
        other = connected.get(name)
        return (key_on(other) if other is not None else None) or known.get(name)

    found, missing = peers(machine(), everyone(), key_of)
    if missing:
        logger.warning("%s can't reach %s in the overlay before they are deployed", host.name, ", ".join(missing))
    data = settings().overlay
    written = [
        generated.template(
            _TEMPLATES / "overlay.netdev.j2",
            _NETDEV,
            mode="640",
            group=GROUP,
            interface=data.interface,
            port=data.port,
            key_file=PRIVATE_KEY,
            peers=found,
        ),
        generated.template(_TEMPLATES / "overlay.network.j2", _NETWORK, interface=data.interface, address=data.address),
    ]
    networkd_enabled(name="Enable systemd-networkd")
    taken_by_networkd(name="Bring the overlay up", interface=data.interface, changed=written)
    systemd.running("systemd-networkd.service")
