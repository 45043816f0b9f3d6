"""The node's own key, which never leaves it, and what the hub makes of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from appliance import durable_files
from appliance.pairing.errors import StorageError
from appliance.pairing.wire import Credentials, Identity
from appliance.security.ca.certificates import fingerprint


@dataclass(frozen=True, slots=True)
class NodeKey:
    """The key that a node is known by before it has a certificate."""

    key: ec.EllipticCurvePrivateKey

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read the key, or make it on first use.

        Raises:
            StorageError: the file can't be read or written.
        """
        try:
            if not path.exists():
                durable_files.make_folder(path.parent)
                durable_files.write(path, cls(ec.generate_private_key(ec.SECP256R1())).pem, mode=0o600)
            key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except (OSError, ValueError) as error:
            raise StorageError(f"{path}: can't be used as the node's key: {error}") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise StorageError(f"{path}: holds a key of another type; remove it")
        return cls(key)

    @property
    def pem(self) -> bytes:
        """The key itself."""
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def identity(self, name: str) -> Identity:
        """Return what the node says of itself."""
        return Identity(name=name, fingerprint=fingerprint(self.key.public_key()))

    def request_pem(self, name: str) -> bytes:
        """Return a request for a certificate (PKCS #10)."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(self.key, hashes.SHA256())
        return request.public_bytes(serialization.Encoding.PEM)

    def fits(self, credentials: Credentials, *, name: str) -> str | None:
        """Return what is wrong with the credentials, or None when all is well."""
        try:
            authority = x509.load_pem_x509_certificate(credentials.ca_pem.encode())
            certificate = x509.load_pem_x509_certificates(credentials.certificate_pem.encode())[0]
            names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
            certificate.verify_directly_issued_by(authority)
        except (ValueError, TypeError, InvalidSignature) as error:
            return f"the certificate is not the hub's: {type(error).__name__}"
        if fingerprint(certificate.public_key()) != fingerprint(self.key.public_key()):
            return "the certificate is for another key"
        if [attribute.value for attribute in names] != [name]:
            return "the certificate is for another name"
        if fingerprint(authority.public_key()) != credentials.hub_fingerprint:
            return "the CA is not the one that the hub named"
        return None


def fingerprint_of_certificate(pem: bytes) -> str:
    """Return the fingerprint of the key of a certificate.

    Raises:
        ValueError: it is no certificate.
    """
    return fingerprint(x509.load_pem_x509_certificate(pem).public_key())
