"""Who may use the embedded broker, and how the appliance itself gets in."""

from collections.abc import Mapping
from pathlib import Path

from appliance.bus.broker import Account
from appliance.bus.connection import Connection
from appliance.security.paired import connect_as_paired, read_pairing
from appliance.security.secrets import ensure_secret
from appliance.settings.model import Settings

APPLIANCE = "rouse"
HOME_ASSISTANT = "homeassistant"
LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what a wildcard is reached by on this machine


def secrets_folder(settings: Settings) -> Path:
    """Return the folder that holds this machine's secrets."""
    return settings.paths.state / "secrets"


def password_file(settings: Settings, account: str) -> Path:
    """Return the file that holds the password of an account of the embedded broker."""
    return secrets_folder(settings) / f"broker-{account}.password"


def accounts(settings: Settings) -> Mapping[str, Account]:
    """Return the embedded broker's accounts; their passwords are made on first use.

    The appliance sees its own topics only. Home Assistant may use the broker for everything else in
    the house as well.

    Raises:
        SecretError: a password can't be read or made.
    """
    own = (f"{APPLIANCE}/#",)
    return {
        APPLIANCE: Account(ensure_secret(password_file(settings, APPLIANCE)), publish=own, subscribe=own),
        HOME_ASSISTANT: Account(ensure_secret(password_file(settings, HOME_ASSISTANT))),
    }


def is_node_of_another_hub(settings: Settings) -> bool:
    """Whether this machine's broker is neither its own nor named by its settings: it learns of it by pairing."""
    return settings.broker.url is None and "hub" not in settings.node.roles


def connect_to(settings: Settings, *, port: int | None = None) -> Connection:
    """Return the connection to the house's broker.

    It is the one that the settings name, or the one that this node was paired with, or the embedded one on this
    machine.

    Args:
        settings: the effective settings.
        port: where the embedded broker really listens, if the caller knows.

    Raises:
        BusConfigurationError: a file that the settings name can't be used.
        SecretError: the embedded broker's password can't be read or made.
    """
    broker = settings.broker
    if broker.url is not None:
        return Connection.to_external(broker, broker.url)
    if (pairing := read_pairing(settings.paths.state)) is not None and is_node_of_another_hub(settings):
        return connect_as_paired(pairing, settings.paths.state)
    return Connection.to_own_listener(
        host=LOOPBACK.get(broker.listen_host, broker.listen_host),
        port=port or broker.listen_port,
        username=APPLIANCE,
        password=ensure_secret(password_file(settings, APPLIANCE)),
        certificate=broker.listen_cert_file,
    )
