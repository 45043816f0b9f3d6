"""Makes certificates and lists of revoked ones (X.509, RFC 5280): ECDSA P-256 with SHA-256 throughout.

P-256 rather than Ed25519, because Home Assistant and small MQTT devices talk to the same broker, and mbedTLS 3 knows no
Ed25519. docs/decisions/mutual-tls.md has what was measured.
"""

import datetime as dt
import hashlib
import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PEM = serialization.Encoding.PEM
EARLIER = dt.timedelta(days=1)
"""How long before it is made a certificate begins to count: clocks of machines without a battery are behind."""
CRL_EARLIER = dt.timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Signer:
    """Who signs."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


@dataclass(frozen=True, slots=True)
class Subject:
    """Who is certified: a common name, the names it is verified by, and its roles as URIs."""

    name: str
    dns: tuple[str, ...]
    uris: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()


def new_key() -> ec.EllipticCurvePrivateKey:
    """Return a new key."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a key as PEM (PKCS #8), in clear: it belongs into a file for its owner only."""
    return key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def load_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """Read a key.

    Raises:
        ValueError: it is none of ours.
    """
    key = serialization.load_pem_private_key(pem, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("the key is not ECDSA")  # noqa: TRY004 - the file's content is wrong, not a type
    return key


def fingerprint(key: PublicKeyTypes) -> str:
    """Return the SHA-256 of a public key (SubjectPublicKeyInfo, DER), in hexadecimal digits."""
    encoded = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(encoded).hexdigest()


def ca_certificate(
    name: str, key: ec.EllipticCurvePrivateKey, *, now: dt.datetime, days: int, signer: Signer | None = None
) -> x509.Certificate:
    """Return the certificate of a CA: signed by itself, or by its predecessor (a cross certificate)."""
    subject = _named(name)
    end = now + dt.timedelta(days=days)
    if signer is not None:
        end = min(end, signer.certificate.not_valid_after_utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signer.certificate.subject if signer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - EARLIER)
        .not_valid_after(end)
        # One CA may stand below: the next one, while both are trusted.
        .add_extension(x509.BasicConstraints(ca=True, path_length=0 if signer else 1), critical=True)
        .add_extension(_usage(ca=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if signer is not None:
        builder = builder.add_extension(_authority(signer), critical=False)
    return builder.sign(signer.key if signer else key, hashes.SHA256())


def end_certificate(
    subject: Subject, key: ec.EllipticCurvePublicKey, *, signer: Signer, now: dt.datetime, days: int
) -> x509.Certificate:
    """Return the certificate of a machine, for use as server and client."""
    names: list[x509.GeneralName] = [
        *(x509.DNSName(name) for name in subject.dns),
        *(x509.IPAddress(ipaddress.ip_address(address)) for address in subject.addresses),
        *(x509.UniformResourceIdentifier(uri) for uri in subject.uris),
    ]
    uses = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
    return (
        x509.CertificateBuilder()
        .subject_name(_named(subject.name))
        .issuer_name(signer.certificate.subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - EARLIER)
        .not_valid_after(min(now + dt.timedelta(days=days), signer.certificate.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(_authority(signer), critical=False)
        .sign(signer.key, hashes.SHA256())
    )


def revocation_list(
    signer: Signer,
    revoked: Iterable[tuple[int, dt.datetime]],
    *,
    now: dt.datetime,
    days: int,
    before: x509.CertificateRevocationList | None,
) -> x509.CertificateRevocationList:
    """Return a list of revoked serial numbers that replaces the one `before`.

    Its time is later than the former's even within a second, because OpenSSL takes the latest.
    """
    updated = (now - CRL_EARLIER).replace(microsecond=0)
    number = 1
    if before is not None:
        updated = max(updated, before.last_update_utc + dt.timedelta(seconds=1))
        number = before.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number + 1
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(signer.certificate.subject)
        .last_update(updated)
        .next_update(now + dt.timedelta(days=days))
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(_authority(signer), critical=False)
    )
    for serial, when in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(when).build()
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(signer.key, hashes.SHA256())


def certificates_of(pem: bytes) -> list[x509.Certificate]:
    """Return all certificates in a file.

    Raises:
        ValueError: there is none.
    """
    return x509.load_pem_x509_certificates(pem)


def is_issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    """Whether a CA has signed a certificate."""
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def joined(certificates: Sequence[x509.Certificate]) -> bytes:
    """Return certificates as one file."""
    return b"".join(one.public_bytes(PEM) for one in certificates)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _authority(signer: Signer) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.key.public_key())


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
