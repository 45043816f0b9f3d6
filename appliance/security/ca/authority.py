"""The house's certificate authority: it is made on first use, and signs, revokes and renews what is needed."""

import datetime as dt
import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from appliance.security.audit import AuditError, AuditLog
from appliance.security.ca import certificates
from appliance.security.ca.certificates import Subject
from appliance.security.ca.errors import CaError, RequestRefusedError, UnknownCertificateError
from appliance.security.ca.names import (
    HOME_ASSISTANT,
    HUB_ACCOUNT,
    HUB_NAME,
    MONITOR,
    RESERVED,
    client_name,
    node_name,
    role_uri,
)
from appliance.security.ca.requests import requested_key
from appliance.security.ca.store import Book, CaStore, Generation, Issued, Kind
from appliance.security.ca.succession import DAY, Succession
from appliance.security.layout import hub_folder
from appliance.settings.certificates import CertificateSettings
from appliance.settings.section import NAME_PATTERN, Role

_log = logging.getLogger(__name__)

REMEMBERED_SECONDS = 30 * DAY
"""How long the record of a certificate outlives it."""


def ca_folder(state: Path) -> Path:
    """Return the CA's folder in the state folder."""
    return hub_folder(state) / "ca"


class Authority:
    """The CA. It blocks: call it in a thread."""

    def __init__(
        self,
        store: CaStore,
        *,
        house: str,
        settings: CertificateSettings | None = None,
        longest_days: int = 365,
        clock: Callable[[], float] = time.time,
        audit: AuditLog | None = None,
    ) -> None:
        """Take its folder, the hub's name, and for how long the certificates that it issues are valid at most.

        What it issues, revokes and replaces is written to the audit log, if there is one.
        """
        self._store = store
        self._audit = audit
        self._succession = Succession(
            store, house=house, settings=settings or CertificateSettings(), longest_days=longest_days, clock=clock
        )
        self._clock = clock

    @property
    def ca_pem(self) -> bytes:
        """The certificates of all CAs that are trusted; the one that signs first.

        Raises:
            CaStorageError: they can't be read.
        """
        return certificates.joined([self._store.certificate(one.id) for one in self._book().generations])

    @property
    def crossed_pem(self) -> bytes:
        """The certificate by which who trusts the former CA alone can trust this one; empty if there is none."""
        cross = self._succession.cross(self._book())
        return certificates.joined([cross] if cross else [])

    @property
    def crl_file(self) -> Path:
        """The lists of revoked certificates."""
        return self._store.crl_file

    @property
    def generations(self) -> tuple[Generation, ...]:
        """The CAs that are trusted; the one that signs first."""
        return self._book().generations

    def certificate(self, generation: str) -> x509.Certificate:
        """Return a CA's certificate."""
        return self._store.certificate(generation)

    def state(self) -> object:
        """Return what changes when the CA does, also by another process."""
        return self._store.state()

    def issued(self) -> list[Issued]:
        """Return all certificates that were issued."""
        return self._store.issued()

    def names(self, kind: Kind = "node") -> frozenset[str]:
        """Return who has a certificate that counts."""
        now = self._clock()
        return frozenset(one.name for one in self._store.issued() if one.kind == kind and one.counts(now))

    def ends(self) -> Mapping[tuple[Kind, str], float]:
        """Return when the last certificate of each ends; of those that count."""
        now = self._clock()
        return {(one.kind, one.name): one.ends for one in self._store.issued() if one.counts(now)}

    def sign(self, request_pem: bytes, *, name: str, roles: tuple[Role, ...], days: int) -> bytes:
        """Return a certificate of the request's key for a node, with its chain.

        Raises:
            RequestRefusedError: the request is none that can be granted, or the name is reserved.
            CaStorageError: the disk refuses.
        """
        if name in RESERVED or re.fullmatch(NAME_PATTERN, name) is None:
            raise RequestRefusedError(
                f"{name[:80]!r} is no name that a node may have; give it another one in its rouse.toml"
            )
        if name in self.names("client"):
            raise RequestRefusedError(f"{name} is the name of a client that is no node; give the node another one")
        key = requested_key(request_pem)
        granted = tuple(role for role in dict.fromkeys(roles) if role != "hub")
        return self._issue(_node(name, granted), key, kind="node", roles=granted, days=days)

    def sign_client(self, key: ec.EllipticCurvePublicKey, *, name: str, monitor: bool, days: int) -> bytes:
        """Return a certificate for a program that is no node, such as Home Assistant or Prometheus, with its chain.

        Raises:
            RequestRefusedError: a node has that name, or it is reserved.
            CaStorageError: the disk refuses.
        """
        taken = (RESERVED - {HOME_ASSISTANT}) | self.names("node")
        if name in taken or re.fullmatch(NAME_PATTERN, name) is None:
            raise RequestRefusedError(
                f"{name[:80]!r} is a node's or reserved, or no name: lower-case letters, digits, - and _"
            )
        roles = (MONITOR,) if monitor else ()
        subject = Subject(name, (client_name(name),), tuple(role_uri(role) for role in roles))
        return self._issue(subject, key, kind="client", roles=roles, days=days)

    def sign_hub(
        self, key: ec.EllipticCurvePublicKey, *, names: Iterable[str], addresses: Iterable[str], days: int
    ) -> bytes:
        """Return the hub's own certificate with its chain, also for the names and addresses that people use."""
        dns = (HUB_NAME, *(name for name in dict.fromkeys(names) if name != HUB_NAME))
        subject = Subject(HUB_ACCOUNT, dns, (role_uri("hub"),), tuple(dict.fromkeys(addresses)))
        return self._issue(subject, key, kind="hub", roles=("hub",), days=days)

    def renew(self, request_pem: bytes, *, name: str, days: int) -> bytes:
        """Return a certificate for who has one already, of the same key and with the same roles.

        It is the same as the last one, unless that is to be renewed, so that asking again costs nothing.

        Raises:
            RequestRefusedError: it has none that counts, or asks for another key.
            CaStorageError: the disk refuses.
        """
        key = requested_key(request_pem)
        self._book()
        with self._store.locked():
            last = self._last(name)
            if last is None:
                raise RequestRefusedError(f"{name} has no certificate that counts; pair it anew")
            if last.fingerprint != certificates.fingerprint(key):
                raise RequestRefusedError(f"{name} asks for a certificate of another key than its own; pair it anew")
            due = last.wanted_anew or is_due(last.begins, last.ends, self._clock())
            if last.generation == self.generations[0].id and not due:
                return last.chain.encode()
            subject = _node(name, last.roles)
            return self._issue_locked(subject, key, kind="node", roles=last.roles, days=days)

    def want_renewal(self, name: str) -> None:
        """Have a node renew its certificate as soon as it can.

        Raises:
            UnknownCertificateError: it has none.
        """
        self._book()
        with self._store.locked():
            last = self._last(name)
            if last is None:
                raise UnknownCertificateError(f"no node {name} has a certificate that counts")
            self._store.write_issued(last.model_copy(update={"wanted_anew": True}))

    def wanted(self) -> tuple[str, ...]:
        """Return the nodes that shall renew their certificates before their time."""
        now, last = self._clock(), {}
        for one in self._store.issued():
            if one.kind == "node" and one.counts(now):
                last[one.name] = one.wanted_anew
        return tuple(name for name, wanted in last.items() if wanted)

    def revoke(self, name: str) -> None:
        """Make the certificates of a node worthless; nothing happens if it has none."""
        self._revoke(lambda one: one.name == name and one.kind != "hub")

    def revoke_certificate(self, serial: int) -> Issued:
        """Make one certificate worthless.

        Raises:
            UnknownCertificateError: there is none of that number.
        """
        those = self._revoke(lambda one: one.serial == serial)
        if not those:
            raise UnknownCertificateError(f"no certificate has the serial number {serial:x}")
        return those[0]

    def is_current(self, chain_pem: bytes) -> bool:
        """Whether the CA that signs has signed a certificate."""
        return certificates.is_issued_by(
            certificates.certificates_of(chain_pem)[0], self._store.certificate(self._book().generations[0].id)
        )

    def rotate(self, *, at_once: bool = False) -> Generation:
        """Make a new CA, which signs from now on. The former one stays trusted for a while, or not, with `at_once`.

        Raises:
            CaError: a CA that was replaced earlier is still trusted.
        """
        with self._store.locked():
            book = self._store.book()
            if book is None:
                return self._begin().generations[0]
            if len(book.generations) > 1 and not at_once:
                raise CaError(
                    f"the CA {book.generations[1].id} was replaced already and is trusted until "
                    f"{_date(book.generations[1].retires)}; wait, or end that with --at-once, after which every node "
                    "must be paired anew"
                )
            following = self._succession.rotate(book, at_once=at_once).generations[0]
            former = "the former one is trusted no more" if at_once else "the former one stays trusted for a while"
            self._record("rotate", f"ca {following.id}", f"{former}: {book.generations[0].id}")
            return following

    def maintain(self) -> None:
        """Do what time asks for: make the CA, replace it, let a former one go, renew the lists, forget old records.

        What was interrupted is finished.

        Raises:
            CaStorageError: the disk refuses.
        """
        with self._store.locked():
            former = self._store.book() or self._begin()
            book = self._succession.followed(former)
            if book.generations[0].id != former.generations[0].id:
                self._record("rotate", f"ca {book.generations[0].id}", f"in time after {former.generations[0].id}")
            self._store.clean_up(frozenset(one.id for one in book.generations))
            for one in self._store.issued():
                if one.ends + REMEMBERED_SECONDS < self._clock():
                    self._store.forget_issued(one)
            self._succession.renew_lists(book, only_if_needed=True)

    def _begin(self) -> Book:
        book = self._succession.begin()
        self._record("make", f"ca {book.generations[0].id}", "the first one")
        return book

    def _record(self, what: str, subject: str, detail: str) -> None:
        if self._audit is None:
            return
        try:
            self._audit.record("hub", f"certificate.{what}", subject, "done", detail)
        except AuditError as error:
            _log.error("%s", error)

    def _last(self, node: str) -> Issued | None:
        """Return the last certificate of a node that counts."""
        now = self._clock()
        counting = [one for one in self._store.issued() if one.name == node and one.kind == "node" and one.counts(now)]
        return counting[-1] if counting else None

    def _book(self) -> Book:
        book = self._store.book()
        if book is None:
            self.maintain()
            book = self._store.book()
        if book is None:
            raise CaError("the CA could not be made")
        return book

    def _issue(
        self, subject: Subject, key: ec.EllipticCurvePublicKey, *, kind: Kind, roles: tuple[str, ...], days: int
    ) -> bytes:
        self._book()
        with self._store.locked():
            return self._issue_locked(subject, key, kind=kind, roles=roles, days=days)

    def _issue_locked(
        self, subject: Subject, key: ec.EllipticCurvePublicKey, *, kind: Kind, roles: tuple[str, ...], days: int
    ) -> bytes:
        book = self._store.book()
        if book is None:
            raise CaError("the CA's book is gone")
        signer = self._store.signer(book.generations[0].id)
        issued = certificates.end_certificate(subject, key, signer=signer, now=self._now(), days=days)
        cross = self._succession.cross(book)
        chain = certificates.joined([issued, *([cross] if cross else [])])
        before = [one.issued for one in self._store.issued() if one.name == subject.name]
        record = Issued(
            serial=issued.serial_number,
            name=subject.name,
            kind=kind,
            roles=roles,
            generation=book.generations[0].id,
            fingerprint=certificates.fingerprint(key),
            # Later than the one before even when the clock was set back: the last one is the one that counts.
            issued=max([self._clock(), *(when + 0.001 for when in before)]),
            begins=issued.not_valid_before_utc.timestamp(),
            ends=issued.not_valid_after_utc.timestamp(),
            chain=chain.decode(),
        )
        self._store.write_issued(record)
        self._record(
            "issue",
            subject.name,
            f"serial {record.serial:x}, as {', '.join(roles) or kind}, until {_date(record.ends)}",
        )
        return chain

    def _revoke(self, matches: Callable[[Issued], bool]) -> list[Issued]:
        """Revoke what matches and has not ended. What is issued meanwhile comes before or after all of it."""
        self._book()
        with self._store.locked():
            book, now = self._store.book(), self._clock()
            those = [one for one in self._store.issued() if matches(one)]
            for one in those:
                if one.revoked is None and one.ends > now:
                    self._store.write_issued(one.model_copy(update={"revoked": now}))
                    self._record("revoke", one.name, f"serial {one.serial:x}")
            if book is not None:
                self._succession.renew_lists(book, only_if_needed=True)
            return those

    def _now(self) -> dt.datetime:
        return dt.datetime.fromtimestamp(self._clock(), dt.UTC)


def _node(name: str, roles: tuple[str, ...]) -> Subject:
    return Subject(name, (node_name(name),), tuple(role_uri(role) for role in roles))


def is_due(begins: float, ends: float, now: float) -> bool:
    """Whether a certificate is to be renewed: two thirds of its time are over."""
    return now >= begins + (ends - begins) * 2 / 3


def _date(when: float | None) -> str:
    return "for ever" if when is None else dt.datetime.fromtimestamp(when, dt.UTC).strftime("%Y-%m-%d")
