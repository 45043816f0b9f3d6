"""What a node was given when it was paired: where the broker is, and who it is there.

`appliance.pairing` writes it. What the experts need as well, who listen with the node's certificate, is in a folder
that is shared with them, `pairing.json` too: it is there exactly when the node is paired. The rest is the node's alone.
"""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, ValidationError

from appliance.bus.connection import PORTS, Connection
from appliance.bus.messages import Slug
from appliance.security.ca.names import HUB_NAME
from appliance.security.layout import secret_file, secrets_folder
from appliance.security.secrets import SecretError, read_secret
from appliance.security.tls import Identity, client_context


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
        return self.house / "pairing.json"

    @property
    def journal(self) -> Path:
        """All of it in one file, from the moment of pairing until the files below have been written."""
        return self.secrets / "pairing.journal"

    @property
    def secrets(self) -> Path:
        """The folder of the node's secrets."""
        return secrets_folder(self.state, "node")

    @property
    def house(self) -> Path:
        """The folder of what the experts need as well."""
        return secrets_folder(self.state, "experts") / "house"

    @property
    def password(self) -> Path:
        """The node's password at the broker."""
        return self.secrets / "broker.password"

    @property
    def expert_key(self) -> Path:
        """What the house's experts want to see; before pairing, each machine makes its own."""
        return secret_file(self.state, "expert.key")

    @property
    def ca(self) -> Path:
        """The CAs that the house trusts."""
        return self.house / "ca.pem"

    @property
    def certificate(self) -> Path:
        """The node's certificate."""
        return self.house / "node.pem"

    @property
    def key(self) -> Path:
        """The key of the node's certificate."""
        return self.house / "node.key"


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


def identity_of(files: PairingFiles) -> Identity:
    """Return a paired node's certificate, and whom it trusts, as they are now.

    Raises:
        SecretError: a file is missing.
    """
    try:
        trusted = files.ca.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise SecretError(f"{files.ca}: can't be read; to pair anew, run rouse pair reset") from error
    return Identity(chain=files.certificate, key=files.key, trusted=trusted)


def connect_as_paired(pairing: Pairing, state: Path) -> Connection:
    """Return the connection of a paired node to the house's broker, which must show the hub's certificate.

    Raises:
        SecretError: a file is missing or broken.
    """
    files = PairingFiles(state)
    parts = urlsplit(pairing.broker_url)
    tls = client_context(identity_of(files), expected=HUB_NAME) if parts.scheme == "mqtts" else None
    return Connection(
        host=parts.hostname or "",
        port=parts.port or PORTS[parts.scheme],
        username=pairing.username,
        password=read_secret(files.password),
        tls=tls,
    )
