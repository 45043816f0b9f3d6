"""What a node was given when it was paired: where the broker is, and who it is there.

`appliance.pairing` writes it. `<state>/pairing.json` is there exactly when the node is paired; the secrets lie in
`<state>/secrets`.
"""

from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from appliance.bus.connection import Connection
from appliance.bus.messages import Slug
from appliance.security.secrets import SecretError
from appliance.settings.model import BrokerSettings


class Pairing(BaseModel):
    """The house that a node belongs to; no secret is in it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    hub: Slug
    broker_url: str
    username: str
    hub_fingerprint: str
    """SHA-256 of the public key of the hub's CA."""
    since: float
    """Unix time."""


@dataclass(frozen=True, slots=True)
class PairingFiles:
    """Where it is kept."""

    state: Path

    @property
    def record(self) -> Path:
        """Who the hub is; its presence is what makes the node paired."""
        return self.state / "pairing.json"

    @property
    def journal(self) -> Path:
        """All of it in one file, from the moment of pairing until the files below have been written."""
        return self.secrets / "pairing.journal"

    @property
    def secrets(self) -> Path:
        """The folder of the machine's secrets."""
        return self.state / "secrets"

    @property
    def password(self) -> Path:
        """The node's password at the broker."""
        return self.secrets / "broker.password"

    @property
    def ca(self) -> Path:
        """The hub's CA."""
        return self.secrets / "tls" / "ca.pem"

    @property
    def certificate(self) -> Path:
        """The node's certificate."""
        return self.secrets / "tls" / "node.pem"

    @property
    def key(self) -> Path:
        """The key of the node's certificate."""
        return self.secrets / "tls" / "node.key"


def read_pairing(state: Path) -> Pairing | None:
    """Return the house that this node belongs to, or None while it belongs to none.

    Raises:
        SecretError: what is there can't be read.
    """
    path = PairingFiles(state).record
    try:
        return Pairing.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise SecretError(f"{path}: can't be read; to pair anew, run rouse pair reset") from error


def connect_as_paired(pairing: Pairing, state: Path) -> Connection:
    """Return the connection of a paired node to the house's broker.

    Raises:
        BusConfigurationError: a file is missing or broken.
    """
    files = PairingFiles(state)
    tls = pairing.broker_url.startswith("mqtts:")
    settings = BrokerSettings(
        url=pairing.broker_url,
        username=pairing.username,
        password_file=files.password,
        ca_file=files.ca if tls else None,
        cert_file=files.certificate if tls else None,
        key_file=files.key if tls else None,
    )
    return Connection.to_external(settings, pairing.broker_url)
