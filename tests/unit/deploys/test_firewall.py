"""Zones and rules; the rules are read by nft itself where it is there (tests/deploys loads them for real)."""

import re
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from appliance.settings import Settings
from pyinfra_deploys import firewall
from pyinfra_deploys.errors import DeployError
from pyinfra_deploys.firewall.openings import Opening, openings, openings_of_any_role
from pyinfra_deploys.firewall.zones import Zone, refuse_cut, zones
from pyinfra_deploys.generated import render
from pyinfra_deploys.reach import ConnectionSeen, Way

_TEMPLATE = Path(firewall.__file__).parent / "templates" / "nftables.conf.j2"
ANY = "::"
_LITERAL = re.compile(r"\b\d{1,3}(\.\d{1,3}){3}\b|[0-9a-f]{1,4}::")


def settings(**sections: Any) -> Settings:
    return Settings.model_validate(sections)


def ports(zone: Zone) -> set[tuple[str, int]]:
    return {(opening.service, opening.port) for opening in zone.ports}


def rules(of: Settings) -> str:
    overlay, underlay = zones(of)
    return render(_TEMPLATE, overlay=overlay, underlay=underlay)


def test_no_address_in_the_template() -> None:
    assert _LITERAL.search(_TEMPLATE.read_text()) is None


def test_defaults_open_ssh_and_names_only() -> None:
    overlay, underlay = zones(settings(broker={"own": "embedded"}))
    assert ports(underlay) == {("ssh", 22), ("mdns", 5353)}
    assert ports(overlay) == {("ssh", 22)}
    assert overlay.interfaces == ()


def test_nodes_reach_the_hubs_mosquitto_and_others_once_it_listens_to_them() -> None:
    _, underlay = zones(settings())
    assert ports(underlay) == {("ssh", 22), ("mdns", 5353), ("broker", 8883)}
    _, underlay = zones(settings(broker={"listen_host": ANY}))
    assert ports(underlay) == {("ssh", 22), ("mdns", 5353), ("broker", 8883), ("broker", 8884)}


def test_services_are_open_once_they_listen_to_others() -> None:
    of = settings(
        node={"roles": ["hub"], "status_host": ANY},
        gateway={"host": ANY, "port": 8200},
        broker={"listen_host": ANY, "listen_port": 8883, "own": "embedded"},
        overlay={"kind": "wireguard", "address": "10.77.0.1/24", "port": 51999},
    )
    overlay, underlay = zones(of)
    assert ports(underlay) == {("ssh", 22), ("mdns", 5353), ("gateway", 8200), ("broker", 8883), ("overlay", 51999)}
    assert ports(overlay) == {("ssh", 22), ("gateway", 8200), ("broker", 8883), ("status", 8101)}
    assert (overlay.interfaces, overlay.v4) == (("rouse0",), ("10.77.0.0/24",))


def test_pairing_door_of_a_node_that_names_no_broker() -> None:
    alone = settings(node={"roles": ["expert"]})
    assert Opening("pairing", "tcp", 8104) in openings(alone)
    paired = settings(node={"roles": ["expert"]}, broker={"url": "mqtt://hub"})
    assert Opening("pairing", "tcp", 8104) not in openings(paired)


def test_a_hub_without_its_role_opens_no_broker() -> None:
    of = settings(node={"roles": ["expert"]}, gateway={"host": ANY}, broker={"listen_host": ANY})
    assert {opening.service for opening in openings(of)} == {"ssh", "mdns", "pairing"}


def test_experts_and_workers() -> None:
    of = settings(
        experts={"small": {"model": "a.gguf", "host": "10.77.0.2", "port": 8110}, "own": {"model": "b.gguf"}},
        rpc_worker={"enabled": True, "host": "10.77.0.2", "overlay": ["10.77.0.0/24"]},
        overlay={"kind": "wireguard", "address": "10.77.0.2/24"},
    )
    overlay, underlay = zones(of)
    assert {("experts", 8110), ("rpc-worker", 50053), ("rpc-worker", 50052)} <= ports(overlay)
    assert ("experts", 8110) in ports(underlay), "a house may have no overlay"
    assert "rpc-worker" not in {opening.service for opening in underlay.ports}


def test_experts_without_a_port_open_their_range() -> None:
    of = settings(experts={"small": {"model": "a.gguf", "host": ANY}}, node={"expert_ports": "8110-8112"})
    assert Opening("experts", "tcp", 8110, 8112) in openings(of)
    assert 'tcp dport 8110-8112 accept comment "experts"' in rules(of)


def test_an_image_opens_what_any_role_needs() -> None:
    found = {(one.service, one.port) for one in openings_of_any_role(settings())}
    assert {("pairing", 8104), ("broker", 8883), ("experts", 8110), ("gateway", 8100), ("ssh", 22)} <= found


def test_zone_that_asks_for_more() -> None:
    of = settings(
        node={"status_host": ANY},
        network={"zones": {"underlay": {"services": ["status", "ssh"], "networks": [], "interfaces": ["en*"]}}},
    )
    _, underlay = zones(of)
    assert ports(underlay) == {("ssh", 22), ("status", 8101)}
    assert 'iifname { "en*" } goto underlay\n\t\tgoto refused' in rules(of)
    assert "saddr !=" not in rules(of)


def test_rules_of_one_family_only() -> None:
    text = rules(settings(network={"zones": {"underlay": {"networks": ["192.168.1.0/24"]}}}))
    assert "ip saddr != { 192.168.1.0/24 } goto refused" in text
    assert "meta nfproto ipv6 goto refused" in text


def test_nobody_outside_pretends_to_be_inside() -> None:
    text = rules(settings(overlay={"kind": "wireguard", "address": "10.77.0.2/24"}))
    inside = text.index('iifname { "rouse0" } goto overlay')
    assert inside < text.index("ip saddr { 10.77.0.0/24 } goto refused") < text.index("goto underlay")


def way(client: str, interface: str = "eth0", port: int = 22) -> Way:
    return Way(ip_address(client), port, interface)


@pytest.mark.parametrize(
    "good",
    [way("192.168.1.7"), way("fe80::1"), way("10.77.0.9", "rouse0"), way("10.1.2.3", "wlan0")],
)
def test_connections_that_stay(good: Way) -> None:
    refuse_cut(zones(settings(overlay={"kind": "wireguard", "address": "10.77.0.2/24"})), good)


@pytest.mark.parametrize(
    "bad",
    [
        way("203.0.113.9"),
        way("192.168.1.7", port=2222),
        way("10.77.0.9", "eth0"),
        way("192.168.1.7", "rouse0"),
    ],
)
def test_connections_that_would_be_cut(bad: Way) -> None:
    with pytest.raises(DeployError, match="would cut off this connection"):
        refuse_cut(zones(settings(overlay={"kind": "wireguard", "address": "10.77.0.2/24"})), bad)


def test_interface_in_no_zone() -> None:
    of = settings(network={"zones": {"underlay": {"interfaces": ["enp3s0"]}}})
    refuse_cut(zones(of), way("192.168.1.7", "enp3s0"))
    with pytest.raises(DeployError, match="by wlan0 to port 22"):
        refuse_cut(zones(of), way("192.168.1.7", "wlan0"))


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            ["192.168.1.7 51000 192.168.1.20 22", "192.168.1.7 dev enp3s0 src 192.168.1.20 uid 1000 \\ cache"],
            way("192.168.1.7", "enp3s0"),
        ),
        (["::ffff:192.168.1.7 51000 ::ffff:192.168.1.20 2222"], way("192.168.1.7", "", 2222)),
        (["fe80::1%eth0 51000 fe80::2%eth0 22", "fe80::1 dev eth0 proto kernel"], way("fe80::1")),
        ([""], None),
    ],
)
def test_connection_as_the_machine_sees_it(said: list[str], expected: Way | None) -> None:
    assert ConnectionSeen().process(said) == expected
