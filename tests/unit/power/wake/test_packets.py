import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from appliance.power.errors import NotWokenError
from appliance.power.wake.packets import Call, Caller, Way, ways_out
from appliance.settings.waking import WakeSettings
from tests.unit.power.wake.house import MAC, Card

RAW = bytes.fromhex(MAC.replace(":", ""))


def address(ip: str, netmask: str | None, **more: Any) -> SimpleNamespace:
    return SimpleNamespace(
        **{"family": socket.AF_INET, "address": ip, "netmask": netmask, "broadcast": None, "ptp": None, **more}
    )


def test_ways_lead_into_every_network_but_loopback_and_single_peers(tmp_path: Path) -> None:
    addresses = {
        "lo": [address("127.0.0.1", "255.0.0.0")],
        "eth0": [
            address("192.168.1.7", "255.255.255.0"),
            address("fe80::1", None, family=socket.AF_INET6),
            address("52:54:00:00:00:01", None, family=socket.AF_PACKET),
        ],
        "eth0:1": [address("10.1.2.3", "255.255.240.0")],
        "wlan0": [address("192.168.1.8", "255.255.255.0")],
        "eth1": [address("172.16.0.1", "255.255.0.0")],
        "wg0": [address("10.77.0.1", "255.255.255.255", ptp="10.77.0.2")],
        "tun0": [address("10.78.0.1", "255.255.255.254")],
        "gone": [address("10.79.0.1", "255.255.255.0")],
    }
    states = {
        "lo": "unknown",
        "eth0": "up",
        "wlan0": "up",
        "eth1": "lowerlayerdown",
        "wg0": "unknown",
        "tun0": "unknown",
    }
    for name, state in states.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "operstate").write_text(f"{state}\n")
    assert ways_out(addresses, interfaces=tmp_path) == (
        Way("10.1.15.255", "10.1.2.3"),
        Way("192.168.1.255", "192.168.1.7"),
        Way("192.168.1.255", "192.168.1.8"),
        Way("255.255.255.255", "10.1.2.3"),
        Way("255.255.255.255", "192.168.1.7"),
        Way("255.255.255.255", "192.168.1.8"),
    )


def test_a_packet_is_what_the_standard_says(card: Card) -> None:
    sent = Call((MAC,), (Way("127.0.0.1"),), card.port).send()
    assert (sent.packets, sent.targets, sent.failures) == (1, ("127.0.0.1",), ())
    assert card.take() == [b"\xff" * 6 + RAW * 16]


def test_a_secureon_password_follows_it(card: Card, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("01:23:45:67:89:AB\n")
    settings = WakeSettings.model_validate(
        {"addresses": ["127.0.0.1"], "port": card.port, "nodes": {"attic": {"secureon_file": file}}}
    )
    call = Caller(settings).call_of("attic", [MAC])
    call.send()
    assert card.take() == [b"\xff" * 6 + RAW * 16 + bytes.fromhex("0123456789ab")]
    assert "0123456789ab" not in repr(call)
    assert Caller(settings).call_of("cellar", [MAC]).password is None


@pytest.mark.parametrize("password", ["", "fe:dc:ba:98:76", "fe:dc:ba:98:76:zz", "0123456789abcd", "mysecretword"])
def test_a_bad_password_is_refused_without_being_repeated(tmp_path: Path, password: str) -> None:
    file = tmp_path / "password"
    file.write_text(password)
    settings = WakeSettings.model_validate({"addresses": ["127.0.0.1"], "nodes": {"attic": {"secureon_file": file}}})
    with pytest.raises(NotWokenError) as caught:
        Caller(settings).call_of("attic", [MAC])
    assert str(file) in str(caught.value)
    assert not password or password not in str(caught.value)


def test_settings_of_a_node_come_before_the_others(card: Card) -> None:
    settings = WakeSettings.model_validate(
        {
            "addresses": ["192.0.2.255"],
            "port": card.port,
            "nodes": {"attic": {"macs": ["52-54-00-AA-BB-CC"], "addresses": ["127.0.0.1"]}},
        }
    )
    call = Caller(settings).call_of("attic", [MAC])
    assert call.macs == ("52:54:00:aa:bb:cc",)
    assert call.ways == (Way("127.0.0.1"),)
    assert Caller(settings).call_of("cellar", [MAC]).ways == (Way("192.0.2.255"),)


def test_interfaces_that_may_not_be_read_are_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service without AF_NETLINK sees none."""

    def refused() -> None:
        raise OSError(97, "Address family not supported by protocol")

    monkeypatch.setattr("psutil.net_if_addrs", refused)
    with pytest.raises(NotWokenError, match=r"interfaces can't be read .* set wake\.addresses"):
        Caller(WakeSettings()).call_of("attic", [MAC])


def test_each_address_of_a_node_is_called_on_each_way(card: Card) -> None:
    call = Call((MAC, "52:54:00:12:34:57"), (Way("127.0.0.1"), Way("127.0.0.1", "127.0.0.1")), card.port)
    assert call.send().packets == 4
    assert len(card.take()) == 4


def test_a_way_that_is_closed_does_not_close_the_others(card: Card) -> None:
    sent = Call((MAC,), (Way("127.0.0.1", "192.0.2.77"), Way("127.0.0.1")), card.port).send()
    assert (sent.packets, sent.targets) == (1, ("127.0.0.1",))
    assert len(sent.failures) == 1
    assert "127.0.0.1: " in sent.failures[0]
