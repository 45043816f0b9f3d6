"""Sections that only deploys read: how machines are reached, zones, overlay; and the administrator's password."""

from typing import Any

import pytest
from pydantic import ValidationError

from appliance.settings import Settings

_HASH = "$6$abcdefgh$HnTT6uxUdV1zYsyVxlIs4bY/ZwmNLTz9Pv/9Jg0pVvVRw8iKTGQzkYxZmHq4vXQpNHXvB7pnBPIPQiVQRlZRd1"


def settings(**sections: Any) -> Settings:
    return Settings.model_validate(sections)


@pytest.mark.parametrize(
    "sections",
    [
        {"deploy": {"address": "attic.local", "port": 2222, "user": "debian"}},
        {"deploy": {"address": "fe80::1%eth0"}},
        {"overlay": {"kind": "wireguard", "address": "10.77.0.2/24", "endpoint": "[fd00::2]"}},
        {"overlay": {"kind": "wireguard", "address": "fd77::2/64"}},
        {"overlay": {"kind": "tailscale", "tailscale": {"login_server": "https://headscale.example.org:8443"}}},
        {"network": {"zones": {"underlay": {"interfaces": ["en*", "wlp2s0"], "networks": ["192.168.1.0/24"]}}}},
        {"system": {"password_hash": _HASH}},
        {"system": {"password_hash": "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$X3DX6M94c7o.9agCG9G317fhZg9SqC.5i5rd.RhAtQ7"}},
        {"system": {"time_servers": ["ptbtime1.ptb.de", "2001:db8::123"]}},
    ],
)
def test_good(sections: dict[str, Any]) -> None:
    settings(**sections)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"deploy": {"address": "-oProxyCommand=x"}}, "expected a name such as"),
        ({"deploy": {"address": "a b"}}, "expected a name such as"),
        ({"deploy": {"user": "Admin; id"}}, "expected the name of a user"),
        ({"deploy": {"port": 0}}, "greater than or equal to 1"),
        ({"overlay": {"kind": "wireguard"}}, "required with WireGuard"),
        ({"overlay": {"address": "10.77.0.2"}}, "with its network's length"),
        ({"overlay": {"address": "8.8.8.8/24"}}, "expected a private address"),
        ({"overlay": {"interface": "a/b"}}, "at most 15 characters"),
        ({"overlay": {"endpoint": "host:1\nAllowedIPs=0.0.0.0/0"}}, "without a port"),
        ({"overlay": {"tailscale": {"login_server": "https://x; reboot"}}}, "expected https://host"),
        ({"network": {"zones": {"underlay": {"interfaces": ['en" } accept']}}}}, "expected the name of an interface"),
        ({"network": {"zones": {"underlay": {"networks": ["192.168.1.5/24"]}}}}, "expected a network such as"),
        ({"network": {"zones": {"overlay": {"services": ["everything"]}}}}, "Input should be 'broker'"),
        ({"system": {"password_hash": "secret"}}, "never the password itself"),
        ({"system": {"password_hash": _HASH + "\nroot:x"}}, "never the password itself"),
        ({"system": {"time_servers": ["a b"]}}, "expected a name or an address"),
    ],
)
def test_bad(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        settings(**sections)


def test_hash_is_a_secret() -> None:
    assert _HASH not in repr(settings(system={"password_hash": _HASH}))
