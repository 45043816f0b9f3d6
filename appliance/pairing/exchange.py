"""The exchange's cryptography: a short code becomes a key that nobody else has.

CPace (draft-irtf-cfrg-cpace, suite CPACE-X25519-SHA512, hub as initiator) turns the code into a session key without
letting a listener or a man in the middle test guesses. The hub proves first that it knows the code, so that the node
counts every guess. All that follows is sealed with ChaCha20-Poly1305 (RFC 8439) under keys of HKDF (RFC 5869), one for
each direction.
"""

import secrets
from typing import Literal

from cpace import CPace, CPaceError, CPaceRole
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from appliance.pairing.errors import ImpostorError

SESSION_BYTES = 16
SHARE_BYTES = 32
TAG_BYTES = 64

_CHANNEL = b"rouse pairing 1"

Side = Literal["hub", "node"]


def new_session() -> bytes:
    """Return a random name for an exchange."""
    return secrets.token_bytes(SESSION_BYTES)


class Exchange:
    """One side of one exchange."""

    def __init__(self, side: Side, *, code: str, session: bytes, identity: bytes) -> None:
        """Begin.

        Args:
            side: which one.
            code: eight digits.
            session: the exchange's name, the same on both sides.
            identity: what this side says of itself in the clear; the other must have heard the same.
        """
        self._side = side
        self._session = session
        role = CPaceRole.INITIATOR if side == "hub" else CPaceRole.RESPONDER
        self._pake = CPace.start(role=role, prs=code.encode("ascii"), sid=session, ci=_CHANNEL, ad=identity)
        self._keys: dict[str, ChaCha20Poly1305] = {}

    @property
    def share(self) -> bytes:
        """What the other side needs, and anybody may see."""
        return self._pake.public_share

    def meet(self, share: bytes, identity: bytes) -> None:
        """Take the other side's share and what it says of itself.

        Raises:
            ImpostorError: the share is none that an honest side sends.
        """
        try:
            self._pake.derive(share, identity)
        except CPaceError as error:
            raise ImpostorError(f"the other side's first message is wrong: {error}") from error
        for direction in ("hub", "node"):
            info = b"from " + direction.encode() + b" " + self._session
            key = HKDF(algorithm=SHA256(), length=32, salt=_CHANNEL, info=info).derive(self._pake.isk)
            self._keys[direction] = ChaCha20Poly1305(key)

    @property
    def tag(self) -> bytes:
        """The proof that this side knows the code."""
        return self._pake.tag()

    def proves(self, tag: bytes) -> bool:
        """Whether the other side knows the code."""
        return self._pake.verify(tag)

    def seal(self, content: bytes, *, step: int) -> bytes:
        """Close a message for the other side; each step of an exchange is used once."""
        return self._keys[self._side].encrypt(_nonce(step), content, self._session)

    def open(self, sealed: bytes, *, step: int) -> bytes:
        """Open a message of the other side.

        Raises:
            ImpostorError: it is not from there, or not of this step of this exchange.
        """
        other = "node" if self._side == "hub" else "hub"
        try:
            return self._keys[other].decrypt(_nonce(step), sealed, self._session)
        except InvalidTag as error:
            raise ImpostorError("a message was changed on its way") from error


def _nonce(step: int) -> bytes:
    return step.to_bytes(12)
