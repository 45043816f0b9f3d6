"""Where things are on an appliance: folders with their owners, units, and what the templates are rendered with."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from appliance.firstboot.apply import STATE as FIRST_BOOT_STATE
from appliance.node.unit import SETTINGS_FOLDER
from appliance.security.broker import OWN_MOSQUITTO
from appliance.security.layout import hub_folder, node_folder, secrets_folder
from appliance.security.paired import PairingFiles
from appliance.settings import Settings

CONFIG = "/etc/rouse"
PROGRAM_FOLDER = "/usr/lib/rouse"
PROGRAM = "/usr/bin/rouse"
PREFLIGHT_REPORT = "/run/rouse/preflight/local.json"
BEFORE_NETWORK, AT_BOOT, BY_NODE, BY_TIMER = "before the network", "at boot", "by the node daemon", "by its timer"

STARTED = {
    "rouse-first-boot.service": BEFORE_NETWORK,
    "rouse-preflight.service": BY_TIMER,
    "rouse-preflight.timer": AT_BOOT,
    "rouse-hub.service": AT_BOOT,
    "rouse-node.service": AT_BOOT,
    "rouse-expert@.service": BY_NODE,
    "rouse-rpc-worker.service": BY_NODE,
    "rouse-console@.service": AT_BOOT,
}
"""When each unit is started. Every machine has them all: which roles it has, it may learn at its first start only."""


@dataclass(frozen=True, slots=True)
class OwnedFolder:
    """A folder of the appliance.

    Attributes:
        path: where it is.
        mode: octal; with a leading 2, it passes its group on to what is made in it.
        owner: its user.
        group: its group.
    """

    path: str
    mode: str = "0755"
    owner: str = "root"
    group: str = "root"


def folders(settings: Settings) -> tuple[OwnedFolder, ...]:
    """Return the folders, those above others first."""
    found: dict[str, OwnedFolder] = {}
    for folder in _folders(settings):
        found.setdefault(folder.path, folder)
    return tuple(found.values())


def _folders(settings: Settings) -> Iterator[OwnedFolder]:
    state = settings.paths.state
    yield OwnedFolder("/run/rouse")
    yield OwnedFolder(str(settings.pairing.socket.parent), "2750", "rouse-node", "rouse-pairing")
    yield OwnedFolder(str(PurePosixPath(PREFLIGHT_REPORT).parent))
    yield OwnedFolder(str(SETTINGS_FOLDER), "2750", "rouse-node", "rouse-expert")
    # iwd makes it later, and first boot writes there before.
    yield OwnedFolder("/var/lib/iwd", "0700")
    yield OwnedFolder("/var/lib/rouse")
    yield OwnedFolder(f"/{FIRST_BOOT_STATE}", "0700")
    yield OwnedFolder(str(state))
    yield OwnedFolder(str(hub_folder(state)), "0700", "rouse-hub", "rouse-hub")
    yield OwnedFolder(str(node_folder(state)), "0700", "rouse-node", "rouse-node")
    yield OwnedFolder(str(state / "updates"), owner="rouse-node", group="rouse-node")
    yield OwnedFolder(str(state / "prefixes"), "0700", "rouse-expert", "rouse-expert")
    yield OwnedFolder(str(state / "tuning"), "0700", "rouse-expert", "rouse-expert")
    yield OwnedFolder(str(state / "router"))
    yield OwnedFolder(str(state / "secrets"))
    yield OwnedFolder(str(secrets_folder(state, "bus")), "2770", group="rouse-bus")
    yield OwnedFolder(str(secrets_folder(state, "experts")), "2770", group="rouse-expert-key")
    yield OwnedFolder(str(PairingFiles(state).house), "2750", "rouse-node", "rouse-expert-key")
    yield OwnedFolder(str(secrets_folder(state, "hub")), "0700", "rouse-hub", "rouse-hub")
    yield OwnedFolder(str(secrets_folder(state, "node")), "0700", "rouse-node", "rouse-node")
    yield OwnedFolder(str(settings.paths.models))


def template_data(settings: Settings) -> dict[str, Any]:
    """Return what the templates name."""
    # What is not there is passed over: a machine may become a hub by its rouse.toml.
    broker = settings.broker.mosquitto_folder or OWN_MOSQUITTO
    return {
        "experts_config": str(SETTINGS_FOLDER),
        "models": str(settings.paths.models),
        "broker_folder": str(broker),
        "pairing_folder": str(settings.pairing.socket.parent),
        "program": PROGRAM,
        "report": PREFLIGHT_REPORT,
        "report_folder": str(PurePosixPath(PREFLIGHT_REPORT).parent),
        "state": str(settings.paths.state),
    }
