"""The hub's book of nodes: whom it gave credentials, and how far that went.

A record says `preparing` before anything is made for a node, `handed_over` before anything is sent, and `paired` once
the node said or showed that it has it. What is found as `preparing` at the next start has never left the hub, and is
undone.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict, ValidationError

from appliance import durable_files
from appliance.bus.messages import Slug
from appliance.pairing.errors import StorageError
from appliance.pairing.wire import Fingerprint
from appliance.settings.section import Role

MemberState = Literal["preparing", "handed_over", "paired", "leaving"]


class CertificateAuthority(Protocol):
    """The hub's CA."""

    @property
    def ca_pem(self) -> bytes:
        """Its certificate."""

    def sign(self, request_pem: bytes, *, name: str, roles: tuple[Role, ...], days: int) -> bytes:
        """Return a certificate of the request's key for a node, with its chain."""

    def revoke(self, name: str) -> None:
        """Make the certificates of a node worthless."""


class BrokerAccounts(Protocol):
    """The nodes' accounts at the broker."""

    def add(self, node: str) -> str:
        """Make an account, or give an existing one a new password, and return the password."""

    def remove(self, node: str) -> None:
        """Remove an account."""


@dataclass(frozen=True, slots=True)
class Offices:
    """Who makes what a node is given."""

    authority: CertificateAuthority
    accounts: BrokerAccounts
    expert_key: str = field(repr=False)
    """What the house's experts want to see."""
    reserved: frozenset[str] = frozenset()
    """Names that no node may have."""


class Member(BaseModel):
    """A node in the book."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    node: Slug
    fingerprint: Fingerprint
    state: MemberState
    since: float


class HubLedger:
    """The book, and what is made for those in it. It blocks: call it in a thread."""

    def __init__(
        self,
        folder: Path,
        *,
        offices: Offices,
        certificate_days: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take the book's folder, the CA and the broker's accounts."""
        self._folder = folder
        self.authority = offices.authority
        self.expert_key = offices.expert_key
        self.reserved = offices.reserved
        self._accounts = offices.accounts
        self._days = certificate_days
        self._clock = clock

    def members(self) -> dict[str, Member]:
        """Return all nodes, by name.

        Raises:
            StorageError: the book can't be read.
        """
        try:
            found = [Member.model_validate_json(path.read_bytes()) for path in sorted(self._folder.glob("*.json"))]
        except (OSError, ValidationError) as error:
            raise StorageError(f"{self._folder}: the book of nodes can't be read: {error}") from error
        return {member.node: member for member in found}

    def recover(self) -> None:
        """Undo what was interrupted before it left the hub, and finish what was to end.

        Raises:
            StorageError: the disk refuses.
        """
        for member in self.members().values():
            if member.state in {"preparing", "leaving"}:
                self._strike(member)

    def prepare(self, node: str, fingerprint: str, request_pem: bytes, roles: tuple[Role, ...]) -> tuple[str, bytes]:
        """Make an account and a certificate, and return the password and the certificate.

        A node that is in the book already gets new ones; the caller has made sure that it is the same node.

        Raises:
            StorageError: the disk refuses.
        """
        before = self.members().get(node)
        preparing = self._write(node, fingerprint, "preparing")
        try:
            if before is not None:
                self.authority.revoke(node)
            password = self._accounts.add(node)
            certificate = self.authority.sign(request_pem, name=node, roles=roles, days=self._days)
            self._write(node, fingerprint, "handed_over")
        except Exception:
            self._strike(preparing)
            raise
        return password, certificate

    def confirm(self, node: str) -> bool:
        """Note that the node has what it was given; return whether that is news."""
        member = self.members().get(node)
        if member is None or member.state != "handed_over":
            return False
        self._write(node, member.fingerprint, "paired")
        return True

    def forget(self, node: str) -> bool:
        """Take back all that a node was given; return whether it was in the book.

        Raises:
            StorageError: the disk refuses; it is finished at the next start.
        """
        member = self.members().get(node)
        if member is None:
            return False
        self._write(node, member.fingerprint, "leaving")
        self._strike(member)
        return True

    def _strike(self, member: Member) -> None:
        self._accounts.remove(member.node)
        self.authority.revoke(member.node)
        try:
            durable_files.remove(self._path(member.node))
        except OSError as error:
            raise StorageError(f"the book of nodes can't be written: {error}") from error

    def _write(self, node: str, fingerprint: str, state: MemberState) -> Member:
        member = Member(node=node, fingerprint=fingerprint, state=state, since=self._clock())
        try:
            durable_files.make_folder(self._folder)
            durable_files.write(self._path(node), member.model_dump_json(indent=2).encode(), mode=0o600)
        except OSError as error:
            raise StorageError(f"the book of nodes can't be written: {error}") from error
        return member

    def _path(self, node: str) -> Path:
        return self._folder / f"{node}.json"
