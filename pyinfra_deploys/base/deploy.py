"""Converges the base system."""

from pathlib import Path

from pyinfra import host
from pyinfra.api import deploy

from appliance.firstboot.plan import ZONES, host_name_of
from pyinfra_deploys import generated, packages, systemd
from pyinfra_deploys.base.operations import OtherClocks, host_name, locale_generated, time_zone
from pyinfra_deploys.target import is_chroot, is_image, machine, settings

_TEMPLATES = Path(__file__).parent / "templates"
_EVERYWHERE = ("ca-certificates", "dbus", "iproute2", "nftables", "openssh-server", "procps", "sudo", "tzdata")
_DEBIAN = ("libnss-myhostname", "unattended-upgrades")
"""On an image, updates are whole images, and its resolver knows the machine's own name."""


@deploy("Base system")
def base() -> None:
    """Have the base system as the settings want it."""
    packages.installed(*_EVERYWHERE)
    if not is_image() and not is_chroot():
        packages.installed(*_DEBIAN)
        generated.template(_TEMPLATES / "unattended.conf.j2", "/etc/apt/apt.conf.d/52rouse")
        for timer in ("apt-daily.timer", "apt-daily-upgrade.timer"):
            systemd.enabled(timer)
    _name_and_place()
    _clock()
    sysctl = generated.template(_TEMPLATES / "sysctl.conf.j2", "/etc/sysctl.d/50-rouse.conf")
    systemd.running("systemd-sysctl.service", changed=[sysctl])
    journal = generated.template(_TEMPLATES / "journald.conf.j2", "/etc/systemd/journald.conf.d/50-rouse.conf")
    systemd.running("systemd-journald.service", changed=[journal])


def _name_and_place() -> None:
    """Write the same files as the first boot, with the same content: both may manage one machine."""
    system = settings().system
    named = system.hostname or host_name_of(settings().node.name)
    if named is None and not is_chroot():
        named = host_name_of(machine().name)
    if named is not None:
        generated.text(f"{named}\n", "/etc/hostname")
        host_name(name="Take the host name", wanted=named)
    if system.time_zone is not None:
        time_zone(name="Set the time zone", target=f"../{ZONES}/{system.time_zone}")
    if system.locale is not None:
        if not is_image() and system.locale != "C.UTF-8":
            packages.installed("locales")
            locale_generated(name=f"Generate the locale {system.locale}", wanted=system.locale)
        generated.text(f"LANG={system.locale}\n", "/etc/locale.conf")


def _clock() -> None:
    """Have the time from the network; who runs another program for that keeps it."""
    if host.get_fact(OtherClocks):
        return
    packages.installed("systemd-timesyncd")
    written = []
    if servers := settings().system.time_servers:
        dest = "/etc/systemd/timesyncd.conf.d/50-rouse.conf"
        written.append(generated.template(_TEMPLATES / "timesyncd.conf.j2", dest, servers=servers))
    systemd.enabled("systemd-timesyncd.service")
    systemd.running("systemd-timesyncd.service", changed=written)
