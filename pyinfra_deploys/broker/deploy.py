"""Converges the house's broker."""

from pathlib import Path
from typing import Any

from pyinfra.api import deploy

from appliance.security.broker import OWN_MOSQUITTO, is_loopback
from appliance.settings import Settings
from pyinfra_deploys import generated, packages, systemd
from pyinfra_deploys.appliance.layout import PROGRAM, OwnedFolder
from pyinfra_deploys.appliance.operations import folders_made
from pyinfra_deploys.errors import DeployError
from pyinfra_deploys.target import is_chroot, settings

_TEMPLATES = Path(__file__).parent / "templates"
_UNITS = "/etc/systemd/system"
_CONFIGURATION = "/etc/mosquitto/rouse.conf"
_TABLE = "/etc/tmpfiles.d/50-rouse-broker.conf"
_FOLDER = OwnedFolder(str(OWN_MOSQUITTO), "2750", "rouse-hub", "mosquitto")


@deploy("Broker")
def broker() -> None:
    """Have mosquitto where the hub has a broker of its own.

    Raises:
        DeployError: two of its listeners would have one port.
    """
    wanted = settings().broker
    if wanted.url is not None or wanted.own == "embedded":
        return
    packages.installed("mosquitto")
    data = template_data(settings())
    configuration = generated.template(_TEMPLATES / "mosquitto.conf.j2", _CONFIGURATION, **data)
    generated.template(_TEMPLATES / "tmpfiles.conf.j2", _TABLE, folder=_FOLDER)
    if not is_chroot():
        folders_made(name="Make the broker's folder", folders=(_FOLDER,), table=_TABLE)
    units = {
        "rouse-broker.service": f"{_UNITS}/rouse-broker.service",
        "rouse-broker.path": f"{_UNITS}/rouse-broker.path",
        "rouse-broker-reload.service": f"{_UNITS}/rouse-broker-reload.service",
        "mosquitto.service.conf": f"{_UNITS}/mosquitto.service.d/50-rouse.conf",
    }
    changed: list[Any] = [generated.template(_TEMPLATES / f"{name}.j2", place, **data) for name, place in units.items()]
    # Where the hub has another broker, or is gone, nothing starts it.
    systemd.disabled("mosquitto.service")
    systemd.enabled("rouse-broker.service")
    systemd.running("rouse-broker.service", "mosquitto.service", changed=[configuration, *changed])


def template_data(wanted: Settings) -> dict[str, Any]:
    """Return what the templates name.

    Raises:
        DeployError: two listeners would have one port.
    """
    found = wanted.broker
    open_to_clients = not is_loopback(found.listen_host)
    ports = [found.listen_port, found.nodes_port, *([found.clients_port] if open_to_clients else [])]
    if len(set(ports)) < len(ports) or 0 in ports:
        raise DeployError(
            "broker.listen_port, broker.nodes_port and broker.clients_port must be ports of their own for mosquitto"
        )
    return {
        "clients_host": found.listen_host if open_to_clients else "",
        "clients_port": found.clients_port,
        "configuration": _CONFIGURATION,
        "folder": str(OWN_MOSQUITTO),
        "message_limit": 16 << 20,
        "nodes_host": found.nodes_host or "",
        "nodes_port": found.nodes_port,
        "persistence": "/var/lib/mosquitto",
        "port": found.listen_port,
        "program": PROGRAM,
        "state": str(wanted.paths.state),
    }
