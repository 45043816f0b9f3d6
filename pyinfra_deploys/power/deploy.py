"""Converges what sleep and waking need."""

from pathlib import Path

from pyinfra.api import deploy

from pyinfra_deploys import generated, systemd
from pyinfra_deploys.power.operations import cards_armed
from pyinfra_deploys.target import has_manager, is_chroot, roles, settings

_TEMPLATES = Path(__file__).parent / "templates"
_CARDS = "/etc/systemd/network/99-default.link.d/50-rouse.conf"
_SLEEP = ("sleep.target", "suspend.target", "hibernate.target", "hybrid-sleep.target", "suspend-then-hibernate.target")


@deploy("Power")
def power() -> None:
    """Have cards armed, lids and idle timers without effect, and a hub that nobody can put to sleep."""
    hub = "hub" in roles() and not is_chroot()
    if settings().network.wake_on_lan:
        written = generated.template(_TEMPLATES / "cards.conf.j2", _CARDS)
    else:
        written = generated.absent(_CARDS)
    if has_manager():
        cards_armed(name="Set the network cards", changed=[written])
    generated.template(_TEMPLATES / "sleep.conf.j2", "/etc/systemd/sleep.conf.d/50-rouse.conf", hub=hub)
    logind = generated.template(_TEMPLATES / "logind.conf.j2", "/etc/systemd/logind.conf.d/50-rouse.conf", hub=hub)
    systemd.running("systemd-logind.service", changed=[logind], verb="reload-or-restart")
    if is_chroot():
        # What is made of it may become a hub or not.
        return
    for target in _SLEEP:
        (systemd.masked if hub else systemd.enabled)(target)
