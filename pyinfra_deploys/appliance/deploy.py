"""Converges Rouse itself."""

from pathlib import Path
from typing import Any

from pyinfra import host
from pyinfra.api import deploy

from appliance.firstboot.plan import host_name_of
from appliance.settings.load import MACHINE_FILE
from pyinfra_deploys import generated, packages, systemd
from pyinfra_deploys.appliance import program
from pyinfra_deploys.appliance.layout import AT_BOOT, BEFORE_NETWORK, CONFIG, STARTED, folders, template_data
from pyinfra_deploys.appliance.operations import consoles_enabled, device_rules_used, folders_made
from pyinfra_deploys.target import has_manager, is_chroot, machine, roles, settings
from pyinfra_deploys.users.names import SETTINGS_GROUP

_TEMPLATES = Path(__file__).parent / "templates"
_TABLE = "/etc/tmpfiles.d/50-rouse.conf"
_UNITS = "/etc/systemd/system"
_CHANGED = "changed for the services"


@deploy("Rouse")
def appliance() -> None:
    """Have the program, its settings, its folders, what it may do, and its units; nothing is started yet.

    Raises:
        DeployError: the program is not there, or its wheels can't be used.
    """
    packages.installed("bubblewrap", "dbus", "polkitd")
    changed: list[Any] = [*program.installed(settings().deploy.wheelhouse), *_settings_files()]
    _folders()
    changed += _permissions()
    data = template_data(settings())
    changed += [generated.template(_TEMPLATES / f"{unit}.j2", f"{_UNITS}/{unit}", **data) for unit in STARTED]
    for unit, when in STARTED.items():
        if when in {AT_BOOT, BEFORE_NETWORK} and "@" not in unit:
            systemd.enabled(unit)
    consoles_enabled(name="Show the status screen", terminals=settings().console.terminals)
    host.connector_data[_CHANGED] = changed


@deploy("Rouse: run")
def services() -> None:
    """Have the services run, with everything that they need: this part is the last one."""
    changed = host.connector_data.get(_CHANGED, ())
    if "hub" in roles():
        systemd.running("rouse-hub.service", changed=changed)
    systemd.running("rouse-node.service", changed=changed)


def _settings_files() -> list[Any]:
    """Write what this machine was set up with, and copy its files; its rouse.toml belongs to the first boot."""
    folder: Path = host.data.config_dir
    wanted = {f"groups/{name}.toml": folder / "groups" / f"{name}.toml" for name in ("all", *settings().node.groups)}
    if machine().name:
        wanted[f"hosts/{_host_name()}.toml"] = folder / "hosts" / f"{machine().name}.toml"
    found = {name: source.read_text(encoding="utf-8") for name, source in wanted.items() if source.is_file()}
    return [
        generated.template(_TEMPLATES / "machine.toml.j2", f"{CONFIG}/{MACHINE_FILE}"),
        *(
            generated.text(content, f"{CONFIG}/{name}", mode="640", group=SETTINGS_GROUP, secret=True)
            for name, content in found.items()
        ),
    ]


def _host_name() -> str:
    """Return the host name that the base system has, by which the machine finds its file."""
    name = machine().name
    return settings().system.hostname or host_name_of(settings().node.name) or host_name_of(name) or name


def _folders() -> None:
    wanted = folders(settings())
    generated.template(_TEMPLATES / "tmpfiles.conf.j2", _TABLE, folders=wanted)
    if not is_chroot():
        folders_made(name="Make the folders", folders=wanted, table=_TABLE)


def _permissions() -> list[Any]:
    """Let the node daemon put the machine to sleep, start experts, set the alarm clock and measure."""
    rule = generated.template(_TEMPLATES / "50-rouse-node.rules.j2", "/etc/polkit-1/rules.d/50-rouse-node.rules")
    devices = generated.template(_TEMPLATES / "70-rouse.rules.j2", "/etc/udev/rules.d/70-rouse.rules", rapl=True)
    if has_manager():
        device_rules_used(name="Use the rules for devices", changed=[devices])
    return [rule]
