"""Who may use the embedded broker, and how the appliance itself gets in."""

from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path

from appliance.bus.broker import Account
from appliance.bus.connection import Connection
from appliance.security.ca.names import HOME_ASSISTANT, HUB_ACCOUNT
from appliance.security.layout import secret_file
from appliance.security.node_access import access_of_node
from appliance.security.node_accounts import NodeAccounts
from appliance.security.paired import connect_as_paired, read_pairing
from appliance.security.passwords import fits
from appliance.security.secrets import ensure_secret
from appliance.settings.model import BrokerSettings, Settings

LOOPBACK_HOST = "127.0.0.1"
OWN_MOSQUITTO = Path("/var/lib/rouse-broker")
"""Folder of what the hub's own mosquitto reads; the hub's user writes it, mosquitto's group reads it."""
APPLIANCE = HUB_ACCOUNT
LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what a wildcard is reached by on this machine


def password_file(settings: Settings, account: str) -> Path:
    """Return the file that holds the password of an account of the embedded broker."""
    return secret_file(settings.paths.state, f"broker-{account}.password")


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


class LiveAccounts(Mapping[str, Account]):
    """The embedded broker's accounts as they are at any moment: those that are always there, and those of nodes."""

    def __init__(self, own: Mapping[str, Account], nodes: NodeAccounts) -> None:
        """Take both."""
        self._own = own
        self._nodes = nodes

    def __getitem__(self, user: str) -> Account:
        if user in self._own:
            return self._own[user]
        kept = self._nodes.all[user]
        access = access_of_node(user)
        return Account(
            lambda password: fits(password, kept),
            publish=access.publish,
            subscribe=access.subscribe,
            certificate=True,
            client=f"rouse-node-{user}",
        )

    def __iter__(self) -> Iterator[str]:
        return iter({**self._own, **self._nodes.all})

    def __len__(self) -> int:
        return len({**self._own, **self._nodes.all})


def nodes_host(broker: BrokerSettings) -> str | None:
    """Return where the embedded broker listens for nodes, or None when it does not."""
    if broker.nodes_host is not None:
        return broker.nodes_host
    return None if is_loopback(broker.listen_host) else broker.listen_host


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine reaches a host."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_node_of_another_hub(settings: Settings) -> bool:
    """Whether this machine's broker is neither its own nor named by its settings: it learns of it by pairing."""
    return settings.broker.url is None and "hub" not in settings.node.roles


def mosquitto_folder(settings: Settings) -> Path | None:
    """Return where the hub writes what a mosquitto beside it reads, or None where there is none."""
    if settings.broker.mosquitto_folder is not None:
        return settings.broker.mosquitto_folder
    return OWN_MOSQUITTO if settings.broker.url is None and settings.broker.own == "mosquitto" else None


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
    if is_node_of_another_hub(settings) and (pairing := read_pairing(settings.paths.state)) is not None:
        return connect_as_paired(pairing, settings.paths.state)
    return Connection.to_own_listener(
        host=LOOPBACK_HOST if broker.own == "mosquitto" else LOOPBACK.get(broker.listen_host, broker.listen_host),
        port=port or broker.listen_port,
        username=APPLIANCE,
        password=ensure_secret(password_file(settings, APPLIANCE)),
        certificate=broker.listen_cert_file if broker.own != "mosquitto" else None,
    )
