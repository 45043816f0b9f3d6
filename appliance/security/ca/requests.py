"""Requests for certificates (PKCS #10, RFC 2986) from machines that nobody trusts yet.

Only the key is taken from a request. Whatever else it asks for, a name or an extension such as CA:TRUE, is ignored:
the hub decides what a certificate says.
"""

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec

from appliance.security.ca.errors import RequestRefusedError

LARGEST_BYTES = 16 * 1024
CURVES = (ec.SECP256R1, ec.SECP384R1)


def requested_key(request_pem: bytes) -> ec.EllipticCurvePublicKey:
    """Return the key of a request, whose possession the request proves.

    Raises:
        RequestRefusedError: it is too long, no request, not signed with its key, or its key is of no kind that we take.
    """
    if len(request_pem) > LARGEST_BYTES:
        raise RequestRefusedError(f"the request has {len(request_pem)} bytes; at most {LARGEST_BYTES} are taken")
    try:
        request = x509.load_pem_x509_csr(request_pem)
        key = request.public_key()
        signed = request.is_signature_valid
    except (ValueError, TypeError, x509.InvalidVersion, UnsupportedAlgorithm, InvalidSignature) as error:
        raise RequestRefusedError("the request can't be read: it is no PKCS #10 in PEM with a known key") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, CURVES):
        raise RequestRefusedError("the request's key must be ECDSA P-256 or P-384")
    if not signed:
        raise RequestRefusedError("the request is not signed with its own key")
    return key
