"""The CA's folder: its keys, what it issued, and what it revoked.

    book.json                  which CAs are trusted, the one that signs first; the moment at which a CA comes to be
    <generation>/ca.key        its key, for its owner only
    <generation>/ca.pem        its certificate
    <generation>/cross.pem     the same key, certified by the CA before
    issued/<serial>.json       each certificate, written before anybody gets it
    crl.pem                    the list of revoked ones, of each CA

Each file appears whole or not at all, in an order in which what is there is usable after any of them.
"""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from cryptography import x509
from pydantic import BaseModel, ConfigDict, ValidationError

from appliance import durable_files
from appliance.security.ca import certificates
from appliance.security.ca.certificates import PEM, Signer
from appliance.security.ca.errors import CaStorageError

type Kind = Literal["hub", "node", "client"]


class Generation(BaseModel):
    """A CA that is trusted."""

    model_config = ConfigDict(frozen=True)

    id: str
    made: float
    retires: float | None = None
    """When it stops being trusted; None for the one that signs."""


class Book(BaseModel):
    """The trusted CAs."""

    model_config = ConfigDict(frozen=True)

    house: str
    generations: tuple[Generation, ...]
    """The one that signs first."""


class Issued(BaseModel):
    """A certificate that was issued."""

    model_config = ConfigDict(frozen=True)

    serial: int
    name: str
    kind: Kind
    roles: tuple[str, ...] = ()
    generation: str
    fingerprint: str
    """Of its key."""
    issued: float
    begins: float
    ends: float
    chain: str
    """The certificate itself, as it was handed over (PEM)."""
    revoked: float | None = None
    wanted_anew: bool = False
    """Whether somebody wants it to be renewed before its time."""

    def counts(self, now: float) -> bool:
        """Whether it is valid."""
        return self.revoked is None and self.begins <= now < self.ends


class CaStore:
    """The folder. It blocks."""

    def __init__(self, folder: Path) -> None:
        """Take the folder, which need not be there."""
        self.folder = folder
        self._issued = folder / "issued"
        self.crl_file = folder / "crl.pem"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other threads and processes from changing it meanwhile.

        Raises:
            CaStorageError: the folder can't be used.
        """
        try:
            durable_files.make_folder(self.folder)
            descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise CaStorageError(f"{self.folder}: the CA's folder can't be used: {error.strerror}") from error
        try:
            durable_files.adopt(descriptor, self.folder)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            with _reporting(self.folder):
                yield
        finally:
            os.close(descriptor)

    def book(self) -> Book | None:
        """Return the book, or None before first use.

        Raises:
            CaStorageError: it can't be read.
        """
        with _reporting(self.folder):
            try:
                return Book.model_validate_json((self.folder / "book.json").read_bytes())
            except FileNotFoundError:
                return None

    def write_book(self, book: Book) -> None:
        """Replace the book."""
        self._write(self.folder / "book.json", book.model_dump_json(indent=2).encode())

    def write_generation(self, generation: str, signer: Signer, cross: x509.Certificate | None) -> None:
        """Keep a CA's key and certificates; it counts once the book names it."""
        folder = self.folder / generation
        self._write(folder / "ca.key", certificates.key_pem(signer.key))
        self._write(folder / "ca.pem", signer.certificate.public_bytes(PEM))
        if cross is not None:
            self._write(folder / "cross.pem", cross.public_bytes(PEM))

    def signer(self, generation: str) -> Signer:
        """Return a CA.

        Raises:
            CaStorageError: its files can't be read.
        """
        with _reporting(self.folder):
            key = certificates.load_key((self.folder / generation / "ca.key").read_bytes())
            return Signer(key, self.certificate(generation))

    def certificate(self, generation: str) -> x509.Certificate:
        """Return a CA's certificate.

        Raises:
            CaStorageError: it can't be read.
        """
        with _reporting(self.folder):
            return certificates.certificates_of((self.folder / generation / "ca.pem").read_bytes())[0]

    def cross(self, generation: str) -> x509.Certificate | None:
        """Return a CA's certificate by the CA before, if it has one.

        Raises:
            CaStorageError: it can't be read.
        """
        with _reporting(self.folder):
            try:
                return certificates.certificates_of((self.folder / generation / "cross.pem").read_bytes())[0]
            except FileNotFoundError:
                return None

    def clean_up(self, trusted: frozenset[str]) -> None:
        """Remove CAs that the book does not name, with their keys, and what a power cut left half written."""
        for draft in self.folder.rglob(".*"):
            draft.unlink()
        for folder in self.folder.iterdir():
            if folder.is_dir() and folder != self._issued and folder.name not in trusted:
                shutil.rmtree(folder)

    def issued(self) -> list[Issued]:
        """Return all certificates that were issued, by name and time.

        Raises:
            CaStorageError: one can't be read.
        """
        with _reporting(self.folder):
            found = [Issued.model_validate_json(path.read_bytes()) for path in self._issued.glob("*.json")]
        return sorted(found, key=lambda one: (one.name, one.issued, one.serial))

    def write_issued(self, one: Issued) -> None:
        """Keep a certificate's record."""
        self._write(self._path(one), one.model_dump_json(indent=2).encode())

    def forget_issued(self, one: Issued) -> None:
        """Remove a certificate's record."""
        durable_files.remove(self._path(one))

    def crls(self) -> dict[str, x509.CertificateRevocationList]:
        """Return the lists of revoked certificates by the name of their CA; none that can't be read.

        They can be made again from the records.
        """
        found = {}
        with contextlib.suppress(OSError, ValueError):
            for text in self.crl_file.read_bytes().split(_CRL_END)[:-1]:
                crl = x509.load_pem_x509_crl(text + _CRL_END)
                found[crl.issuer.rfc4514_string()] = crl
        return found

    def write_crls(self, crls: list[x509.CertificateRevocationList]) -> None:
        """Replace the lists."""
        self._write(self.crl_file, b"".join(crl.public_bytes(PEM) for crl in crls))

    def state(self) -> tuple[tuple[str, int, int], ...]:
        """Return what changes when the CA does, also by another process."""
        found = []
        for name in ("book.json", "crl.pem", "issued"):
            with contextlib.suppress(OSError):
                status = (self.folder / name).stat()
                found.append((name, status.st_ino, status.st_mtime_ns))
        return tuple(found)

    def _path(self, one: Issued) -> Path:
        return self._issued / f"{one.serial:040x}.json"

    def _write(self, path: Path, content: bytes) -> None:
        durable_files.make_folder(path.parent)
        durable_files.write(path, content, mode=0o600)


_CRL_END = b"-----END X509 CRL-----\n"


@contextmanager
def _reporting(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, ValidationError) as error:
        where = getattr(error, "filename", None) or folder
        raise CaStorageError(f"{where}: the CA can't be used: {error}") from error
