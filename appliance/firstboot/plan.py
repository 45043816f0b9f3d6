"""What the settings mean for the files of the system: a pure function, without a look at the machine."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import SecretStr

from appliance.firstboot.networks import network_files, wifi_files
from appliance.firstboot.planned import PlannedFile
from appliance.settings.model import Settings

SETTINGS_FILE = "etc/rouse/rouse.toml"
SETTINGS_GROUP = "rouse"
ADMINISTRATOR = "admin"
ZONES = "usr/share/zoneinfo"

_KEYS_FOLDER = "etc/ssh/authorized_keys.d"
_SSHD = f"# Written by rouse first-boot.\nAuthorizedKeysFile .ssh/authorized_keys /{_KEYS_FOLDER}/%u\n"


@dataclass(frozen=True, slots=True)
class Plan:
    """All that is to be on the machine."""

    files: tuple[PlannedFile, ...]
    hostname: str | None
    time_zone: str | None
    password_hash: SecretStr | None = None
    """The administrator's."""


def plan(settings: Settings, content: bytes, *, administrator: str = ADMINISTRATOR) -> Plan:
    """Return what a good file asks for.

    Args:
        settings: the file's settings.
        content: the file itself, for the services.
        administrator: the user that the SSH keys are for.
    """
    hostname = settings.system.hostname or host_name_of(settings.node.name)
    return Plan(
        files=tuple(_files(settings, content, hostname, administrator)),
        hostname=hostname,
        time_zone=settings.system.time_zone,
        password_hash=settings.system.password_hash,
    )


def host_name_of(node: str | None) -> str | None:
    """Return the host name of a node's name: the same, with - for what a host name can't hold."""
    return (re.sub("[^a-z0-9-]", "-", node).strip("-")[:63] or None) if node is not None else None


def own_host_name(machine_id: str) -> str:
    """Return the host name of a machine that nobody has named: always the same, and not its neighbour's."""
    return f"rouse-{hashlib.sha256(f'rouse host name {machine_id}'.encode()).hexdigest()[:6]}"


def _files(settings: Settings, content: bytes, hostname: str | None, administrator: str) -> Iterator[PlannedFile]:
    system = settings.system
    if hostname is not None:
        yield PlannedFile("etc/hostname", f"{hostname}\n".encode())
    if system.locale is not None:
        yield PlannedFile("etc/locale.conf", f"LANG={system.locale}\n".encode())
    if system.ssh_keys:
        keys = "".join(f"{key}\n" for key in system.ssh_keys)
        yield PlannedFile(f"{_KEYS_FOLDER}/{administrator}", keys.encode())
        yield PlannedFile("etc/ssh/sshd_config.d/10-rouse-first-boot.conf", _SSHD.encode())
    yield from wifi_files(settings.network.wifi)
    yield from network_files(settings.network)
    yield PlannedFile(SETTINGS_FILE, content, mode=0o640, group=SETTINGS_GROUP)
