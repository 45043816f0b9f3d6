"""Converges the firewall."""

from pathlib import Path

from pyinfra.api import deploy

from pyinfra_deploys import generated, packages, systemd
from pyinfra_deploys.firewall.openings import openings_of_any_role
from pyinfra_deploys.firewall.operations import applied
from pyinfra_deploys.firewall.zones import refuse_cut, zones
from pyinfra_deploys.reach import way
from pyinfra_deploys.target import is_chroot, is_remote, machine, settings

_TEMPLATES = Path(__file__).parent / "templates"
_RULES = "/etc/nftables.conf"


@deploy("Firewall")
def firewall() -> None:
    """Have the firewall that the zones ask for.

    Raises:
        DeployError: it would cut off the connection of this run.
    """
    packages.installed("nftables")
    wanted = zones(settings(), openings_of_any_role(settings()) if machine().any_role else None)
    if is_remote():
        refuse_cut(wanted, way())
    written = generated.template(
        _TEMPLATES / "nftables.conf.j2", _RULES, check="nft -c -f {new}", overlay=wanted[0], underlay=wanted[1]
    )
    systemd.enabled("nftables.service")
    if not is_chroot():
        applied(name="Apply the firewall's rules", rules=_RULES, changed=[written])
