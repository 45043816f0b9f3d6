"""The library against the draft's own test vectors, and what we make of it."""

import cpace
import pytest

from appliance.pairing.codes import new_code, shown, typed
from appliance.pairing.errors import ImpostorError
from appliance.pairing.exchange import Exchange, new_session

# draft-irtf-cfrg-cpace-21, appendix B.1: CPACE-X25519-SHA512.
PRS = b"Password"
CI = bytes.fromhex("6f630b425f726573706f6e6465720b415f696e69746961746f72")
SID = bytes.fromhex("7e4b4791d6a8ef019b936c79fb7f2c57")
YA = bytes.fromhex("21b4f4bd9e64ed355c3eb676a28ebedaf6d8f17bdc365995b319097153044080")
YB = bytes.fromhex("848b0779ff415f0af4ea14df9dd1d3c29ac41d836c7808896c4eba19c51ac40a")
SHARE_A = bytes.fromhex("1b02dad6dbd29a07b6d28c9e04cb2f184f0734350e32bb7e62ff9dbcfdb63d15")
SHARE_B = bytes.fromhex("20cda5955f82c4931545bcbf40758ce1010d7db4db2a907013d79c7a8fcf957f")
ISK = bytes.fromhex(
    "a051ee5ee2499d16da3f69f430218b8ea94a18a45b67f9e86495b382c33d14a5"
    "c38cecc0cc834f960e39e0d1bf7d76b9ef5d54eecc5e0f386c97ad12da8c3d5f"
)
LOW_ORDER = (
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
)


def test_the_vectors_of_the_draft(monkeypatch: pytest.MonkeyPatch) -> None:
    sides = {}
    for role, scalar, ad in ((cpace.CPaceRole.INITIATOR, YA, b"ADa"), (cpace.CPaceRole.RESPONDER, YB, b"ADb")):
        monkeypatch.setattr("cpace.secrets.token_bytes", lambda _, scalar=scalar: scalar)
        sides[role] = cpace.CPace.start(role=role, prs=PRS, sid=SID, ci=CI, ad=ad)
    initiator, responder = sides.values()
    assert (initiator.public_share, responder.public_share) == (SHARE_A, SHARE_B)
    initiator.derive(SHARE_B, b"ADb")
    responder.derive(SHARE_A, b"ADa")
    assert initiator.isk == responder.isk == ISK
    assert initiator.verify(responder.tag())
    assert responder.verify(initiator.tag())


@pytest.mark.parametrize("share", LOW_ORDER)
def test_shares_of_low_order_are_refused(share: str) -> None:
    exchange = Exchange("node", code="12345678", session=new_session(), identity=b"attic")
    with pytest.raises(ImpostorError):
        exchange.meet(bytes.fromhex(share), b"house")


def met(hub_code: str = "12345678", node_code: str = "12345678", heard: bytes = b"house") -> tuple[Exchange, Exchange]:
    session = new_session()
    hub = Exchange("hub", code=hub_code, session=session, identity=b"house")
    node = Exchange("node", code=node_code, session=session, identity=b"attic")
    hub.meet(node.share, b"attic")
    node.meet(hub.share, heard)
    return hub, node


def test_both_know_the_code() -> None:
    hub, node = met()
    assert hub.proves(node.tag)
    assert node.proves(hub.tag)
    assert node.open(hub.seal(b"for the node", step=2), step=2) == b"for the node"
    assert hub.open(node.seal(b"for the hub", step=2), step=2) == b"for the hub"


@pytest.mark.parametrize("sides", [("12345678", "12345679", b"house"), ("12345678", "12345678", b"thief")])
def test_another_code_or_identity(sides: tuple[str, str, bytes]) -> None:
    hub, node = met(*sides)
    assert not hub.proves(node.tag)
    assert not node.proves(hub.tag)
    with pytest.raises(ImpostorError):
        node.open(hub.seal(b"x", step=1), step=1)


def test_what_was_said_cannot_be_said_back_or_at_another_step() -> None:
    hub, node = met()
    sealed = hub.seal(b"x", step=1)
    with pytest.raises(ImpostorError):
        hub.open(sealed, step=1)
    with pytest.raises(ImpostorError):
        node.open(sealed, step=2)
    assert not hub.proves(hub.tag)


def test_codes() -> None:
    codes = {new_code() for _ in range(100)}
    assert len(codes) > 95
    for code in codes:
        assert typed(shown(code)) == code
    for text in ("1234-5678\n", " 1234 5678", "1234\u20135678", "12.34.56.78"):
        assert typed(text) == "12345678"
    for text in ("", "1234567", "123456789", "1234567a", "\uff11" * 8):
        assert typed(text) is None
