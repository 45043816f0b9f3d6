"""TLS between machines of the house (RFC 8446): both sides show a certificate of the house's CA.

A machine is verified by the name in its certificate, not by its address, which may change: see `VerifiedContext`.
Certificates and CAs change while a service runs: see `LiveServer`.
"""

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from appliance.security.ca.names import Peer, peer_of
from appliance.security.secrets import SecretError


@dataclass(frozen=True, slots=True)
class Identity:
    """A machine's certificate, its key, and whom it trusts."""

    chain: Path
    key: Path
    trusted: str
    """CAs, as PEM."""
    crl: Path | None = None
    """Lists of revoked certificates; without them none is looked up."""


class VerifiedContext(ssl.SSLContext):
    """Verifies whoever answers by a name that is known beforehand, and sends that name (SNI)."""

    expected: str = ""

    def wrap_socket(self, sock: object, *arguments: object, **named: object) -> ssl.SSLSocket:
        """Ignore the address that was connected to."""
        return super().wrap_socket(sock, *arguments, **{**named, "server_hostname": self.expected})  # type: ignore[arg-type]

    def wrap_bio(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *_: object, **__: object) -> ssl.SSLObject:
        """Ignore the address that was connected to."""
        return super().wrap_bio(incoming, outgoing, server_side=False, server_hostname=self.expected)


def client_context(identity: Identity, *, expected: str) -> VerifiedContext:
    """Return what connects to a machine of the house that is called `expected`.

    Raises:
        SecretError: a file can't be read or does not fit the others.
    """
    context = VerifiedContext(ssl.PROTOCOL_TLS_CLIENT)
    context.expected = expected
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    _load(context, identity)
    return context


def server_context(identity: Identity, *, oldest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    """Return what listens, and lets in who shows a certificate of the house.

    Sessions are not resumed, because a resumed one is not checked against the revoked certificates again.

    Raises:
        SecretError: a file can't be read or does not fit the others.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = oldest
    context.verify_mode = ssl.CERT_REQUIRED
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET
    _load(context, identity)
    return context


def renew(context: ssl.SSLContext, identity: Identity) -> None:
    """Have new connections use the files as they are now. A CA that went away stays trusted until a restart.

    Raises:
        SecretError: a file can't be read or does not fit the others.
    """
    _load(context, identity)


class LiveServer:
    """A server's context whose certificate and trust change without a new socket."""

    def __init__(self, make: Callable[[], ssl.SSLContext]) -> None:
        """Take what makes a context of the files as they are.

        Raises:
            SecretError: it can't be made.
        """
        self._make = make
        self._current = make()
        self.context = make()
        """To listen with; each handshake goes on with the newest."""
        self.context.sni_callback = self._choose

    def renew(self) -> None:
        """Have new connections use the files as they are now.

        Raises:
            SecretError: it can't be done; the former ones stay.
        """
        self._current = self._make()

    def _choose(self, connection: ssl.SSLSocket | ssl.SSLObject, _name: str, _context: ssl.SSLContext) -> None:
        # OpenSSL calls it for each connection, also for one that names nobody, and verifies by the context that is set.
        connection.context = self._current


def peer(connection: ssl.SSLSocket | ssl.SSLObject | None) -> Peer | None:
    """Return who is at the other end; None without TLS or without a certificate."""
    return peer_of(connection.getpeercert()) if connection is not None else None


def _load(context: ssl.SSLContext, identity: Identity) -> None:
    try:
        context.load_cert_chain(identity.chain, identity.key)
        context.load_verify_locations(cadata=identity.trusted)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        if identity.crl is not None:
            context.load_verify_locations(cafile=identity.crl)
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    except (OSError, ssl.SSLError) as error:
        raise SecretError(f"{identity.chain}: can't be used as this machine's certificate: {error}") from error
