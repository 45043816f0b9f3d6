"""How one CA follows another, and the lists of what each has revoked. Whoever calls holds the store's lock."""

import datetime as dt
from collections.abc import Callable

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from appliance.security.ca import certificates
from appliance.security.ca.certificates import Signer
from appliance.security.ca.errors import CaError
from appliance.security.ca.store import Book, CaStore, Generation
from appliance.settings.certificates import CertificateSettings

DAY = 86_400.0
CRL_RENEWAL_SECONDS = DAY


class Succession:
    """The CAs of a house, one after another."""

    def __init__(
        self,
        store: CaStore,
        *,
        house: str,
        settings: CertificateSettings,
        longest_days: int,
        clock: Callable[[], float],
    ) -> None:
        """Take where they are kept, the hub's name, and for how long their certificates are valid at most."""
        self._store = store
        self._house = house
        self._settings = settings
        self._longest_days = longest_days
        self._clock = clock

    def begin(self) -> Book:
        """Make the first CA."""
        key, generation, certificate = self._new_ca(None)
        self._store.write_generation(generation.id, Signer(key, certificate), None)
        book = Book(house=self._house, generations=(generation,))
        self._store.write_book(book)
        self.renew_lists(book)
        return book

    def rotate(self, book: Book, *, at_once: bool) -> Book:
        """Make another CA, certified by the former one, which stays trusted for a while; or not, with `at_once`."""
        former = book.generations[0]
        signer = None if at_once else self._store.signer(former.id)
        key, generation, certificate = self._new_ca(former)
        cross = None
        if signer is not None:
            name, days = self._name(generation.id), self._settings.ca_days
            cross = certificates.ca_certificate(name, key, now=self._now(), days=days, signer=signer)
        self._store.write_generation(generation.id, Signer(key, certificate), cross)
        retiring = former.model_copy(update={"retires": self._clock() + self._settings.overlap_days * DAY})
        book = book.model_copy(update={"generations": (generation,) if at_once else (generation, retiring)})
        self._store.write_book(book)
        self.renew_lists(book)
        return book

    def followed(self, book: Book) -> Book:
        """Return the book as it is by now: a CA near its end is followed by another, a former one goes in time."""
        now = self._clock()
        end = self._store.certificate(book.generations[0].id).not_valid_after_utc.timestamp()
        # No certificate shall be cut short by the end of its CA.
        margin = min(2 * self._longest_days, self._settings.ca_days / 2) * DAY
        if len(book.generations) == 1 and end - now < margin:
            book = self.rotate(book, at_once=False)
        trusted = tuple(one for one in book.generations if one.retires is None or one.retires > now)
        if trusted != book.generations:
            book = book.model_copy(update={"generations": trusted})
            self._store.write_book(book)
        return book

    def cross(self, book: Book) -> x509.Certificate | None:
        """Return the certificate of the CA that signs by the former one, while that is trusted."""
        return self._store.cross(book.generations[0].id) if len(book.generations) > 1 else None

    def renew_lists(self, book: Book, *, only_if_needed: bool = False) -> None:
        """Write the list of each CA: of what it issued and what was revoked before its end."""
        now, before = self._now(), self._store.crls()
        revoked: dict[str, dict[int, dt.datetime]] = {one.id: {} for one in book.generations}
        for one in self._store.issued():
            if one.revoked is not None and one.generation in revoked:
                revoked[one.generation][one.serial] = dt.datetime.fromtimestamp(one.revoked, dt.UTC)
        needed, lists = not only_if_needed or len(before) != len(book.generations), []
        for generation in book.generations:
            signer = self._store.signer(generation.id)
            old = before.get(signer.certificate.subject.rfc4514_string())
            serials = revoked[generation.id]
            if old is None or {entry.serial_number for entry in old} != serials.keys():
                needed = True
            else:
                needed |= (now - old.last_update_utc).total_seconds() > CRL_RENEWAL_SECONDS
            days = self._settings.crl_days
            lists.append(certificates.revocation_list(signer, serials.items(), now=now, days=days, before=old))
        if needed:
            self._store.write_crls(lists)

    def _new_ca(self, former: Generation | None) -> tuple[ec.EllipticCurvePrivateKey, Generation, x509.Certificate]:
        key = certificates.new_key()
        generation = Generation(id=certificates.fingerprint(key.public_key())[:16], made=self._clock())
        if former is not None and former.id == generation.id:
            raise CaError("two keys are the same: this machine has no randomness")
        name, days = self._name(generation.id), self._settings.ca_days
        return key, generation, certificates.ca_certificate(name, key, now=self._now(), days=days)

    def _name(self, generation: str) -> str:
        return f"Rouse CA {self._house[:30]} {generation[:8]}"

    def _now(self) -> dt.datetime:
        return dt.datetime.fromtimestamp(self._clock(), dt.UTC)
