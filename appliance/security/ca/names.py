"""Names in certificates: how a machine is called, what it may do, and how to read both.

The subject's common name is the account at the broker. A machine is verified by a DNS name that never changes, because
addresses do: `attic.node.rouse.internal` (`.internal` is reserved for private use by ICANN). Roles are URIs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

HUB_ACCOUNT = "rouse"
"""The appliance's own account at the broker, and the common name of the hub."""
HOME_ASSISTANT = "homeassistant"
HUB_NAME = "hub.rouse.internal"
RESERVED = frozenset({HUB_ACCOUNT, HOME_ASSISTANT, "external", "hub"})
"""Names that no node may have: accounts of others, and what stands for external experts."""

MONITOR = "monitor"
"""The role of a client that may read how experts are, and no more."""

_ROLE = "rouse:role:"


def node_name(node: str) -> str:
    """Return the DNS name by which a node is verified."""
    return f"{node}.node.rouse.internal"


def client_name(client: str) -> str:
    """Return the DNS name of a client that is no node."""
    return f"{client}.client.rouse.internal"


def role_uri(role: str) -> str:
    """Return a role as it stands in a certificate."""
    return f"{_ROLE}{role}"


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end of a connection, as its certificate says; the CA's signature was checked by TLS."""

    name: str
    roles: frozenset[str]


def peer_of(certificate: Mapping[str, Any] | None) -> Peer | None:
    """Return whose certificate it is, as `ssl.SSLSocket.getpeercert` gives it; None without one or without a name."""
    if not certificate:
        return None
    subject: Sequence[Sequence[tuple[str, str]]] = certificate.get("subject", ())
    names = [value for part in subject for key, value in part if key == "commonName"]
    if len(names) != 1:
        return None
    uris = [value for kind, value in certificate.get("subjectAltName", ()) if kind == "URI"]
    return Peer(names[0], frozenset(uri.removeprefix(_ROLE) for uri in uris if uri.startswith(_ROLE)))
