"""What goes over the wire, as JSON: exact types, bounded sizes, nothing unknown.

POST /pairing/start    StartRequest  -> StartReply     shares, in the clear
POST /pairing/prove    ProveRequest  -> ProveReply     the hub's proof; the node's, and its sealed SigningRequest
POST /pairing/finish   FinishRequest -> FinishReply    sealed Credentials; sealed Stored

A refusal is a Refusal with a status of 4xx. GET /pairing tells the State of the door.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator

from appliance.bus.messages import Slug
from appliance.pairing.exchange import SESSION_BYTES, SHARE_BYTES, TAG_BYTES
from appliance.settings.model import BrokerSettings

VERSION: Literal[1] = 1
LARGEST_BYTES = 64 * 1024

Fingerprint = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""SHA-256 of a public key (SubjectPublicKeyInfo, DER), in hexadecimal digits."""
Session = Annotated[str, StringConstraints(pattern=rf"^[0-9a-f]{{{2 * SESSION_BYTES}}}$")]
Share = Annotated[bytes, Field(min_length=SHARE_BYTES, max_length=SHARE_BYTES)]
Tag = Annotated[bytes, Field(min_length=TAG_BYTES, max_length=TAG_BYTES)]
Sealed = Annotated[bytes, Field(max_length=LARGEST_BYTES)]
Pem = Annotated[str, StringConstraints(max_length=16_384)]
Label = Annotated[str, StringConstraints(max_length=120, pattern=r"^[^\x00-\x1f\x7f]*$")]
DoorState = Literal["open", "claimed", "locked", "paired"]


class Part(BaseModel):
    """Base of all parts."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, val_json_bytes="base64", ser_json_bytes="base64"
    )


class Identity(Part):
    """What a side says of itself in the clear; both sides prove that they heard the same."""

    name: Slug
    fingerprint: Fingerprint
    """The node's own key's; the hub's CA's."""

    def encoded(self) -> bytes:
        """Return it as the proofs cover it."""
        return f"{self.name} {self.fingerprint}".encode()


class StartRequest(Part):
    """The hub begins."""

    version: Literal[1]
    session: Session
    hub: Identity
    share: Share


class StartReply(Part):
    """The node answers."""

    node: Identity
    share: Share


class ProveRequest(Part):
    """The hub proves that it knows the code."""

    session: Session
    tag: Tag


class ProveReply(Part):
    """The node proves it too, and asks for a certificate."""

    tag: Tag
    sealed: Sealed


class SigningRequest(Part):
    """What the node asks for."""

    request_pem: Pem
    roles: Annotated[tuple[Literal["hub", "expert", "voice", "vision"], ...], Field(max_length=8)]


class FinishRequest(Part):
    """The hub hands over."""

    session: Session
    sealed: Sealed


class Credentials(Part):
    """All that a node needs to work in the house."""

    hub: Slug
    broker_url: Annotated[str, StringConstraints(max_length=300, pattern=r"^mqtts?://[!-~]+$")]
    username: Annotated[str, StringConstraints(min_length=1, max_length=128)]
    password: Annotated[str, StringConstraints(min_length=1, max_length=256), Field(repr=False)]
    ca_pem: Pem
    certificate_pem: Pem
    hub_fingerprint: Fingerprint
    expert_key: Annotated[str, StringConstraints(pattern=r"^[!-~]{16,256}$"), Field(repr=False)]
    """What the house's experts want to see in requests."""

    @field_validator("broker_url")
    @classmethod
    def _check_broker_url(cls, url: str) -> str:
        """Refuse what the node could not connect to: the settings' own rules."""
        BrokerSettings(url=url)
        return url


class FinishReply(Part):
    """The node has stored it."""

    sealed: Sealed


class Stored(Part):
    """The node's last word."""

    refused: Annotated[tuple[Label, ...], Field(max_length=20)] = ()
    """Addresses of others that tried to claim the node meanwhile."""


class Refusal(Part):
    """Why not."""

    reason: Literal[
        "malformed", "unknown_session", "wrong_code", "locked", "claimed", "paired", "credentials", "storage"
    ]
    message: Label
    attempts_left: int | None = None
    retry_after: float | None = None
    """Seconds."""


class State(Part):
    """What the door tells everybody."""

    version: Literal[1] = VERSION
    node: Identity
    title: Label
    model: Label
    rouse: Label
    roles: tuple[Literal["hub", "expert", "voice", "vision"], ...]
    state: DoorState
    retry_after: float = 0


def parsed[P: Part](kind: type[P], body: bytes) -> P | None:
    """Return a part, or None if the body is none."""
    try:
        return kind.model_validate_json(body, strict=True)
    except ValidationError:
        return None
