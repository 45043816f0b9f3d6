"""Public keys as real programs write them."""

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.settings.ssh_keys import check_ssh_key

# The security key's line is of ssh-keygen -t ed25519-sk's form, with zeros for its point.
SECURITY_KEY = (
    "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29t"
    "AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAABHNzaDo= you"
)


def line_of(key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> str:
    return key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()


KEYS = {
    "ed25519": line_of(ed25519.Ed25519PrivateKey.generate()),
    "p256": line_of(ec.generate_private_key(ec.SECP256R1())),
    "p384": line_of(ec.generate_private_key(ec.SECP384R1())),
    "p521": line_of(ec.generate_private_key(ec.SECP521R1())),
    "rsa": line_of(rsa.generate_private_key(65537, 2048)),
    "security key": SECURITY_KEY,
}


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_good_keys(key: str) -> None:
    assert check_ssh_key(f"  {key} you@laptop\n", 1) == f"{key} you@laptop"


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_a_key_that_lost_its_end(key: str) -> None:
    kind, body = key.split(" ")[:2]
    for length in range(4, len(body), 4):
        with pytest.raises(ValueError, match="key 3 "):
            check_ssh_key(f"{kind} {body[:-length]}", 3)


def test_a_short_rsa_key() -> None:
    with pytest.raises(ValueError, match="less than 2048 bits"):
        check_ssh_key(line_of(rsa.generate_private_key(65537, 1024)), 1)  # noqa: S505 - that is the point


@settings(deadline=None)
@given(st.text() | st.binary().map(lambda data: f"ssh-ed25519 {data.hex()}"))
def test_any_text(text: str) -> None:
    with pytest.raises(ValueError, match=r"^key 1 "):
        check_ssh_key(text, 1)
