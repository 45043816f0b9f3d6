"""Handshakes with certificates of the house: by name, by role, and with what has changed meanwhile."""

import ssl
import time
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.pairing.identity import NodeKey
from appliance.security.ca.authority import Authority
from appliance.security.ca.names import HUB_NAME, node_name, peer_of
from appliance.security.ca.store import CaStore
from appliance.security.hub_certificate import HubCertificate
from appliance.security.hub_trust import HubTrust
from appliance.security.secrets import SecretError
from appliance.security.tls import Identity, LiveServer, client_context, peer, renew, server_context
from tests.unit.security.ca.conftest import shake_hands


class House:
    """A hub with its CA, and nodes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(CaStore(folder / "ca"), house="house")
        self.trust = HubTrust(self.authority, HubCertificate(folder / "secrets", days=365))
        self.trust.prepare()

    def node(self, name: str) -> Identity:
        folder = self.folder / name
        key = NodeKey.open(folder / "node.key")
        chain = self.authority.sign(key.request_pem(name), name=name, roles=("expert",), days=30)
        (folder / "node.pem").write_bytes(chain)
        return Identity(folder / "node.pem", folder / "node.key", self.authority.ca_pem.decode())


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def test_hub_and_node_know_each_other_whatever_the_address(house: House) -> None:
    attic = house.node("attic")
    there, here = shake_hands(server_context(attic), house.trust.client("attic"))
    assert here.version() == "TLSv1.3"
    hub, node = peer(there), peer(here)
    assert hub is not None
    assert node is not None
    assert (hub.name, set(hub.roles)) == ("rouse", {"hub"})
    assert (node.name, set(node.roles)) == ("attic", {"expert"})
    assert there.context.sni_callback is None
    shake_hands(house.trust.server.context, client_context(attic, expected=HUB_NAME))


def test_another_node_in_its_place(house: House) -> None:
    cellar = house.node("cellar")
    with pytest.raises(ssl.SSLCertVerificationError, match=r"not valid for 'attic\.node\.rouse\.internal'"):
        shake_hands(server_context(cellar), house.trust.client("attic"))
    with pytest.raises(ssl.SSLCertVerificationError, match=r"not valid for 'hub\.rouse\.internal'"):
        shake_hands(server_context(cellar), client_context(house.node("attic"), expected=HUB_NAME))


def test_another_house(house: House, tmp_path: Path) -> None:
    other = House(tmp_path / "other")
    with pytest.raises(ssl.SSLError):
        shake_hands(server_context(other.node("attic")), house.trust.client("attic"))
    foreign = replace(other.node("attic"), trusted=house.authority.ca_pem.decode())
    with pytest.raises(ssl.SSLError):
        shake_hands(house.trust.server.context, client_context(foreign, expected=HUB_NAME))


def test_nobody_without_a_certificate(house: House) -> None:
    bare = ssl.create_default_context(cadata=house.authority.ca_pem.decode())
    bare.check_hostname = False
    with pytest.raises(ssl.SSLError):
        shake_hands(house.trust.server.context, bare)


def test_revocation_counts_in_both_directions_and_at_once(house: House) -> None:
    attic, cellar = house.node("attic"), house.node("cellar")
    server = house.trust.server.context
    client = house.trust.client("attic")
    shake_hands(server_context(attic), client)
    shake_hands(server, client_context(attic, expected=HUB_NAME))
    house.authority.revoke("attic")
    assert house.trust.prepare()
    assert house.trust.nodes == {"cellar"}
    assert house.trust.ends.keys() == {("hub", "rouse"), ("node", "cellar")}
    with pytest.raises(ssl.SSLCertVerificationError, match="revoked"):
        shake_hands(server_context(attic), house.trust.client("attic"))
    with pytest.raises(ssl.SSLError, match=r"(?i)revoked"):
        shake_hands(server, client_context(attic, expected=HUB_NAME))
    shake_hands(server, client_context(cellar, expected=HUB_NAME))
    assert house.trust.client("attic") is not client


def test_an_old_list_of_revoked_certificates_lets_nobody_in(house: House) -> None:
    attic = house.node("attic")
    past = time.time() - 100 * 86_400
    old = Authority(CaStore(house.folder / "ca"), house="house", clock=lambda: past)
    crls = house.authority.crl_file
    crls.unlink()
    old.maintain()
    hub = HubCertificate(house.folder / "secrets", days=365)
    identity = Identity(hub.chain, hub.key, house.authority.ca_pem.decode(), crls)
    with pytest.raises(ssl.SSLCertVerificationError, match="CRL has expired"):
        shake_hands(server_context(attic), client_context(identity, expected=node_name("attic")))


def test_another_ca_without_another_context(house: House) -> None:
    attic = house.node("attic")
    at_node, at_hub = (
        LiveServer(lambda: server_context(replace(attic, trusted=house.authority.ca_pem.decode()))),
        house.trust.server,
    )
    from_node = client_context(attic, expected=HUB_NAME)
    house.authority.rotate()
    house.trust.prepare()
    # The node, which knows the old CA alone, in both directions.
    shake_hands(at_hub.context, from_node)
    shake_hands(server_context(attic), house.trust.client("attic"))
    # It follows, and the old CA goes.
    renewed = house.node("attic")
    at_node.renew()
    renew(from_node, renewed)
    house.authority.rotate(at_once=True)
    house.trust.prepare()
    with pytest.raises(ssl.SSLError):
        shake_hands(at_hub.context, from_node)
    with pytest.raises(ssl.SSLError):
        shake_hands(at_node.context, house.trust.client("attic"))
    newest = house.node("attic")
    at_node.renew()
    shake_hands(at_node.context, house.trust.client("attic"))
    shake_hands(at_hub.context, client_context(newest, expected=HUB_NAME))


def test_files_that_do_not_fit_are_said_with_their_name(house: House, tmp_path: Path) -> None:
    attic, cellar = house.node("attic"), house.node("cellar")
    for bad in (
        replace(attic, key=cellar.key),
        replace(attic, chain=tmp_path / "nowhere"),
        replace(attic, trusted="nonsense"),
    ):
        with pytest.raises(SecretError, match="can't be used as this machine's certificate"):
            server_context(bad)
    live = LiveServer(lambda: server_context(attic))
    attic.chain.write_text("broken")
    with pytest.raises(SecretError):
        live.renew()
    attic.chain.write_bytes(house.authority.issued()[0].chain.encode())
    shake_hands(live.context, house.trust.client("attic"))


def test_peers_that_are_none() -> None:
    assert peer(None) is None
    assert peer_of({}) is None
    assert peer_of({"subject": ((("commonName", "a"),), (("commonName", "b"),))}) is None
    assert peer_of({"subject": ((("organizationName", "a"),),)}) is None
