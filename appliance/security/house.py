"""The hub's offices: the CA, its own certificate, and the accounts at the broker, put together from the settings."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from appliance.bus.broker import Account
from appliance.security.audit import AuditLog, audit_file
from appliance.security.broker import accounts, mosquitto_folder
from appliance.security.ca.authority import Authority, ca_folder
from appliance.security.ca.store import CaStore
from appliance.security.hub_certificate import HubCertificate
from appliance.security.hub_trust import HubTrust
from appliance.security.layout import secrets_folder
from appliance.security.mosquitto import MosquittoFolder
from appliance.security.node_accounts import NodeAccounts, accounts_file
from appliance.settings.model import Settings


@dataclass(frozen=True, slots=True)
class House:
    """What belongs together."""

    trust: HubTrust
    nodes: NodeAccounts
    own: Mapping[str, Account]
    """The accounts that are no nodes'."""
    mosquitto: MosquittoFolder | None

    def prepare(self) -> None:
        """Make what is missing, and have it where mosquitto reads it; it blocks.

        Raises:
            CaError: the CA's folder can't be used.
            SecretError: a file can't be read or written.
        """
        self.trust.prepare()
        if self.mosquitto is not None:
            self.mosquitto.write()


def house_authority(settings: Settings, *, name: str) -> Authority:
    """Return the hub's CA."""
    return Authority(
        CaStore(ca_folder(settings.paths.state)),
        house=name,
        settings=settings.certificates,
        longest_days=settings.pairing.certificate_days,
        audit=AuditLog(audit_file(settings.paths.state)),
    )


def house(settings: Settings, *, name: str) -> House:
    """Return the offices of the hub of that name; passwords that are missing are made.

    Raises:
        SecretError: a file can't be read or written.
    """
    authority = house_authority(settings, name=name)
    certificate = HubCertificate(secrets_folder(settings.paths.state, "hub"), days=settings.pairing.certificate_days)
    nodes, own = NodeAccounts(accounts_file(settings.paths.state)), accounts(settings)
    mosquitto = None
    if (folder := mosquitto_folder(settings)) is not None:
        mosquitto = MosquittoFolder(folder, own=own, nodes=nodes, authority=authority, certificate=certificate)
        nodes.when_changed(partial(_write, mosquitto))
    return House(HubTrust(authority, certificate), nodes, own, mosquitto)


def _write(mosquitto: MosquittoFolder, _node: str) -> None:
    mosquitto.write()
