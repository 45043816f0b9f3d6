"""A small real CA and a book of accounts, each in a folder, that survive being killed."""

import datetime as dt
import hashlib
import json
import secrets
from collections.abc import Callable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from appliance import durable_files
from appliance.pairing.hub_ledger import Offices
from appliance.settings.section import Role

NOW = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)


class SmallAuthority:
    """Signs what it is asked to, and remembers whom it trusts."""

    def __init__(self, folder: Path) -> None:
        self._valid = folder / "valid.json"
        key_file, ca_file = folder / "ca.key", folder / "ca.pem"
        if not ca_file.exists():
            key = ec.generate_private_key(ec.SECP256R1())
            durable_files.write(key_file, _key_pem(key), mode=0o600)
            durable_files.write(ca_file, _certificate(key, key, "house").public_bytes(_PEM), mode=0o600)
        loaded = serialization.load_pem_private_key(key_file.read_bytes(), None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        self._key = loaded
        self.ca_pem = ca_file.read_bytes()

    def sign(self, request_pem: bytes, *, name: str, roles: tuple[Role, ...], days: int) -> bytes:
        assert roles
        assert days
        public = x509.load_pem_x509_csr(request_pem).public_key()
        assert isinstance(public, ec.EllipticCurvePublicKey)
        issued = _certificate(self._key, public, name).public_bytes(_PEM)
        self._write({**self.valid(), name: hashlib.sha256(issued).hexdigest()})
        return issued

    def revoke(self, name: str) -> None:
        self._write({node: issued for node, issued in self.valid().items() if node != name})

    def valid(self) -> dict[str, str]:
        """Return the digests of the certificates that count, by node."""
        return dict(json.loads(self._valid.read_bytes())) if self._valid.exists() else {}

    def _write(self, valid: dict[str, str]) -> None:
        durable_files.write(self._valid, json.dumps(valid).encode(), mode=0o600)


class SmallAccounts:
    """Passwords by node."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "accounts.json"

    def add(self, node: str) -> str:
        password = secrets.token_urlsafe(24)
        self._write({**self.all(), node: password})
        return password

    def remove(self, node: str) -> None:
        self._write({name: password for name, password in self.all().items() if name != node})

    def all(self) -> dict[str, str]:
        return dict(json.loads(self._file.read_bytes())) if self._file.exists() else {}

    def _write(self, accounts: dict[str, str]) -> None:
        durable_files.write(self._file, json.dumps(accounts).encode(), mode=0o600)


def small_offices(folder: Path) -> Offices:
    return Offices(SmallAuthority(folder), SmallAccounts(folder))


type MakeOffices = Callable[[Path], Offices]

_PEM = serialization.Encoding.PEM


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _certificate(
    signer: ec.EllipticCurvePrivateKey, subject: ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey, name: str
) -> x509.Certificate:
    public = subject.public_key() if isinstance(subject, ec.EllipticCurvePrivateKey) else subject

    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    return (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named("house"))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - dt.timedelta(days=400))
        .not_valid_after(NOW + dt.timedelta(days=4000))
        .add_extension(x509.BasicConstraints(ca=subject is signer, path_length=None), critical=True)
        .sign(signer, hashes.SHA256())
    )
