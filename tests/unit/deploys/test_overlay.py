import base64
from pathlib import Path
from typing import Any

import pytest

from appliance.settings import Settings
from pyinfra_deploys import overlay
from pyinfra_deploys.errors import DeployError
from pyinfra_deploys.generated import render
from pyinfra_deploys.inventory import Machine
from pyinfra_deploys.overlay.keys import KnownKeys, PublicKey, checked
from pyinfra_deploys.overlay.peers import Peer, peers

_TEMPLATES = Path(overlay.__file__).parent / "templates"
KEYS = {name: base64.b64encode(bytes([number]) * 32).decode() for number, name in enumerate(("hub", "attic", "shed"))}


def machine(name: str, address: str, **more: Any) -> Machine:
    deploy = {"deploy": {"address": more.pop("reached", f"{name}.lan")}}
    sections = {"overlay": {"kind": "wireguard", "address": address, **more}, **deploy}
    return Machine(name, name, Settings.model_validate(sections))


def test_everybody_else_is_a_peer() -> None:
    house = (
        machine("hub", "10.77.0.1/24", port=5000),
        machine("attic", "10.77.0.2/24", keepalive=0),
        machine("shed", "10.77.0.3/24", endpoint="shed.example.org"),
        Machine("plain", "plain", Settings()),
    )
    found, missing = peers(house[1], house, KEYS.get)
    assert found == (
        Peer("hub", KEYS["hub"], "10.77.0.1/32", "hub.lan:5000", 0),
        Peer("shed", KEYS["shed"], "10.77.0.3/32", "shed.example.org:51820", 0),
    )
    assert missing == ()


def test_key_that_nobody_knows() -> None:
    house = (machine("hub", "10.77.0.1/24"), machine("attic", "10.77.0.2/24"))
    assert peers(house[0], house, lambda _: None) == ((), ("attic",))


def test_ipv6() -> None:
    house = (machine("hub", "fd77::1/64"), machine("attic", "fd77::2/64", reached="fe80::5"))
    (peer,), _ = peers(house[0], house, KEYS.get)
    assert (peer.address, peer.endpoint) == ("fd77::2/128", "[fe80::5]:51820")


@pytest.mark.parametrize(
    ("other", "message"),
    [("10.77.0.1/24", "that of hub"), ("10.78.0.2/24", r"not in 10\.77\.0\.0/24")],
)
def test_addresses_that_do_not_go_together(other: str, message: str) -> None:
    house = (machine("hub", "10.77.0.1/24"), machine("attic", other))
    with pytest.raises(DeployError, match=message):
        peers(house[0], house, KEYS.get)


def test_netdev() -> None:
    peer = Peer("hub", KEYS["hub"], "10.77.0.1/32", "hub.lan:5000", 25)
    text = render(_TEMPLATES / "overlay.netdev.j2", interface="rouse0", port=51820, key_file="/etc/key", peers=[peer])
    assert text.splitlines()[1:] == [
        "[NetDev]",
        "Name=rouse0",
        "Kind=wireguard",
        "Description=Rouse's overlay network",
        "",
        "[WireGuard]",
        "ListenPort=51820",
        "PrivateKeyFile=/etc/key",
        "",
        "# hub",
        "[WireGuardPeer]",
        f"PublicKey={KEYS['hub']}",
        "AllowedIPs=10.77.0.1/32",
        "Endpoint=hub.lan:5000",
        "PersistentKeepalive=25",
    ]


@pytest.mark.parametrize("text", ["", "x", "AAAA", f"{KEYS['hub']}\nAllowedIPs=0.0.0.0/0"])
def test_what_is_no_key(text: str) -> None:
    with pytest.raises(DeployError, match="is none"):
        checked(text)


def test_fact() -> None:
    assert PublicKey().process([KEYS["hub"]]) == KEYS["hub"]
    with pytest.raises(DeployError):
        PublicKey().process(["sh: wg: not found"])


def test_keys_are_remembered(tmp_path: Path) -> None:
    known = KnownKeys(tmp_path)
    assert known.get("hub") is None
    known.remember("hub", KEYS["hub"])
    assert KnownKeys(tmp_path).get("hub") == KEYS["hub"]
    (tmp_path / "overlay" / "hub.pub").write_text("something else\n")
    with pytest.raises(DeployError):
        known.get("hub")


def test_folder_that_can_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "overlay").write_text("a file")
    with pytest.raises(DeployError, match=r"hub\.pub can't be written"):
        KnownKeys(tmp_path).remember("hub", KEYS["hub"])
