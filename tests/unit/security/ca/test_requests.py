"""Requests from machines that nobody trusts: only the key is taken from them, and not every key."""

import base64
import datetime as dt

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.security.ca import certificates
from appliance.security.ca.errors import RequestRefusedError
from appliance.security.ca.requests import LARGEST_BYTES, requested_key
from tests.unit.security.ca.conftest import Ca, leaf, request

KEY = certificates.new_key()
REQUEST = x509.load_pem_x509_csr(request(KEY)).public_bytes(serialization.Encoding.DER)


def test_what_else_is_asked_for_is_ignored(ca: Ca) -> None:
    key = certificates.new_key()
    subject = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, "rouse"), x509.NameAttribute(NameOID.ORGANIZATION_NAME, "x" * 60)]
    )
    names = x509.SubjectAlternativeName(
        [x509.DNSName("hub.rouse.internal"), x509.UniformResourceIdentifier("rouse:role:hub"), x509.DNSName("*")]
    )
    hostile = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(subject)
        .add_extension(x509.BasicConstraints(ca=True, path_length=9), critical=True)
        .add_extension(names, critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                content_commitment=True,
                key_encipherment=True,
                data_encipherment=True,
                key_agreement=True,
                key_cert_sign=True,
                crl_sign=True,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]), critical=True)
        .add_attribute(x509.oid.AttributeOID.CHALLENGE_PASSWORD, b"secret")
        .sign(key, hashes.SHA256())
        .public_bytes(certificates.PEM)
    )
    chain = ca.authority.sign(hostile, name="attic", roles=("expert",), days=1)
    issued = leaf(chain)
    assert issued.subject.rfc4514_string() == "CN=attic"
    assert issued.public_key() == key.public_key()
    constraints = issued.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.value.ca, constraints.critical) == (False, True)
    usage = issued.extensions.get_extension_for_class(x509.KeyUsage).value
    assert (usage.key_cert_sign, usage.crl_sign, usage.digital_signature) == (False, False, True)
    uses = issued.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(uses) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    found = issued.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert found.get_values_for_type(x509.DNSName) == ["attic.node.rouse.internal"]
    assert not ca.trusts(chain, server="hub.rouse.internal")
    # And what such a node would sign itself is worth nothing.
    forged = certificates.end_certificate(
        certificates.Subject("rouse", ("hub.rouse.internal",)),
        certificates.new_key().public_key(),
        signer=certificates.Signer(key, issued),
        now=dt.datetime.fromtimestamp(ca.clock.now, dt.UTC),
        days=1,
    )
    assert not ca.trusts(certificates.joined([forged, issued]), server="hub.rouse.internal")


def test_a_signature_of_another_key(ca: Ca) -> None:
    der = x509.load_pem_x509_csr(request(certificates.new_key())).public_bytes(serialization.Encoding.DER)
    changed = der[:-10] + bytes([der[-10] ^ 1]) + der[-9:]
    pem = _pem(changed)
    with pytest.raises(RequestRefusedError, match=r"signed with its own key|can't be read"):
        ca.authority.sign(pem, name="attic", roles=("expert",), days=1)
    assert ca.authority.issued() == []


def test_somebody_elses_public_key(ca: Ca) -> None:
    """A request for a key that the sender does not have."""
    victim = certificates.new_key().public_key()
    encoding, form = serialization.Encoding.DER, serialization.PublicFormat
    own = certificates.new_key()
    theirs = victim.public_bytes(encoding, form.SubjectPublicKeyInfo)
    mine = own.public_key().public_bytes(encoding, form.SubjectPublicKeyInfo)
    der = x509.load_pem_x509_csr(request(own)).public_bytes(encoding)
    assert mine in der
    with pytest.raises(RequestRefusedError, match="signed with its own key"):
        ca.authority.sign(_pem(der.replace(mine, theirs)), name="attic", roles=("expert",), days=1)


def test_keys_of_other_kinds() -> None:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "attic")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    keys = (
        rsa.generate_private_key(65537, 1024),  # noqa: S505 - it is to be refused
        rsa.generate_private_key(65537, 2048),
        dsa.generate_private_key(1024),  # noqa: S505 - it is to be refused
        ec.generate_private_key(ec.SECP192R1()),
        ec.generate_private_key(ec.SECP256K1()),
    )
    for key in keys:
        with pytest.raises(RequestRefusedError):
            requested_key(builder.sign(key, hashes.SHA256()).public_bytes(certificates.PEM))
    with pytest.raises(RequestRefusedError):
        requested_key(builder.sign(ed25519.Ed25519PrivateKey.generate(), None).public_bytes(certificates.PEM))
    good = ec.generate_private_key(ec.SECP384R1())
    assert requested_key(request(good)) == good.public_key()


def test_a_huge_request() -> None:
    key = certificates.new_key()
    names = x509.SubjectAlternativeName([x509.DNSName(f"{number}.example") for number in range(2000)])
    huge = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).add_extension(names, critical=False)
    pem = huge.sign(key, hashes.SHA256()).public_bytes(certificates.PEM)
    assert len(pem) > LARGEST_BYTES
    with pytest.raises(RequestRefusedError, match="at most 16384 are taken"):
        requested_key(pem)
    with pytest.raises(RequestRefusedError, match="at most"):
        requested_key(request(key) + b"\n" * LARGEST_BYTES)


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_bytes_that_are_changed_anywhere(data: st.DataObject) -> None:
    """Whatever a request was changed into, it is refused, or still asks for its own key."""
    der = bytearray(REQUEST)
    for _ in range(data.draw(st.integers(1, 4))):
        der[data.draw(st.integers(0, len(der) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = requested_key(_pem(bytes(der)))
    except RequestRefusedError:
        return
    assert found == KEY.public_key()


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=600))
def test_nonsense(content: bytes) -> None:
    for pem in (content, _pem(content)):
        with pytest.raises(RequestRefusedError):
            requested_key(pem)


def _pem(der: bytes) -> bytes:
    lines = base64.encodebytes(der)
    return b"-----BEGIN CERTIFICATE REQUEST-----\n" + lines + b"-----END CERTIFICATE REQUEST-----\n"
