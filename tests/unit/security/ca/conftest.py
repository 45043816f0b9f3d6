"""A CA whose time a test moves, and handshakes in memory that follow that time."""

import datetime as dt
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import verification
from cryptography.x509.oid import NameOID

from appliance.security.audit import AuditLog, read_audit
from appliance.security.ca import certificates
from appliance.security.ca.authority import Authority
from appliance.security.ca.store import CaStore
from appliance.security.ca.succession import DAY
from appliance.settings.certificates import CertificateSettings

START = dt.datetime(2026, 11, 1, 12, tzinfo=dt.UTC).timestamp()


class Clock:
    """Time that a test moves."""

    def __init__(self, now: float = START) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def pass_days(self, days: float) -> None:
        self.now += days * DAY


def request(key: ec.EllipticCurvePrivateKey, name: str = "attic") -> bytes:
    """Return a plain request for a certificate."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    built = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return built.public_bytes(certificates.PEM)


def leaf(chain: bytes) -> x509.Certificate:
    return certificates.certificates_of(chain)[0]


@dataclass
class Ca:
    """A CA in a folder."""

    folder: Path
    clock: Clock
    settings: CertificateSettings

    @property
    def authority(self) -> Authority:
        """It anew, as after a restart."""
        return Authority(
            CaStore(self.folder),
            house="house",
            settings=self.settings,
            longest_days=365,
            clock=self.clock,
            audit=AuditLog(self.audit_file, clock=self.clock),
        )

    @property
    def audit_file(self) -> Path:
        """Where it notes what it does."""
        return self.folder.with_name("audit.jsonl")

    def audited(self) -> list[tuple[str, str, str]]:
        """What was noted: deed, subject, detail."""
        return [(one.what, one.subject, one.detail) for one in read_audit(self.audit_file, last=100)]

    def trusts(self, chain: bytes, *, trusted: bytes | None = None, server: str | None = None) -> bool:
        """Whether a certificate verifies at this time, by path and name, and is not revoked."""
        certificate, *between = certificates.certificates_of(chain)
        store = verification.Store(certificates.certificates_of(trusted or self.authority.ca_pem))
        builder = verification.PolicyBuilder().store(store).time(dt.datetime.fromtimestamp(self.clock.now, dt.UTC))
        try:
            if server is None:
                builder.build_client_verifier().verify(certificate, between)
            else:
                builder.build_server_verifier(x509.DNSName(server)).verify(certificate, between)
        except verification.VerificationError:
            return False
        return not self.revoked(certificate)

    def revoked(self, certificate: x509.Certificate) -> bool:
        crls = CaStore(self.folder).crls()
        crl = crls.get(certificate.issuer.rfc4514_string())
        return crl is None or crl.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None


type MakeCa = Callable[..., Ca]


@pytest.fixture
def ca(tmp_path: Path) -> Ca:
    return Ca(tmp_path / "ca", Clock(), CertificateSettings())


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Connect two contexts in memory, and let each hear the other once.

    Raises:
        ssl.SSLError: one does not accept the other.
    """
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    here = client.wrap_bio(to_client, to_server)
    there = server.wrap_bio(to_server, to_client, server_side=True)
    done: set[ssl.SSLObject] = set()
    for _ in range(10):
        for side in (here, there):
            try:
                side.do_handshake()
                done.add(side)
            except ssl.SSLWantReadError:
                pass
    assert len(done) == 2
    here.write(b"hello")
    assert there.read(5) == b"hello"
    there.write(b"hello")
    assert here.read(5) == b"hello"
    return there, here
