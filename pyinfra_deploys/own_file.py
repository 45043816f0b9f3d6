"""The first-boot file that a machine has itself: it is stronger than what the configuration folder says of it."""

from dataclasses import replace
from pathlib import Path
from typing import override

from pyinfra import host
from pyinfra.api import FactBase

from appliance.firstboot.plan import SETTINGS_FILE
from appliance.settings import load
from pyinfra_deploys.inventory import Machine

_MOST_BYTES = 256 * 1024


class OwnFile(FactBase[str | None]):
    """The content of the machine's first-boot file, or None where there is none."""

    @override
    def command(self) -> str:
        return f"if [ -f /{SETTINGS_FILE} ]; then echo there; head -c {_MOST_BYTES} /{SETTINGS_FILE}; fi"

    @override
    def process(self, output: list[str]) -> str | None:
        return "\n".join([*output[1:], ""]) if output[:1] == ["there"] else None


def with_own_file(machine: Machine, config_dir: Path) -> Machine:
    """Return the machine with the settings that it has by its own file as well.

    Raises:
        InvalidSettingsError: the file makes no sense with the rest.
    """
    if machine.is_chroot or machine.is_local:
        return machine
    content = host.get_fact(OwnFile)
    if content is None:
        return machine
    place = Path(f"{machine.target}:/{SETTINGS_FILE}")
    return replace(machine, settings=load(config_dir, {}, machine.name, first_boot=(place, content.encode())).settings)
