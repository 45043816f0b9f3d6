"""Wi-Fi for iwd and addresses for systemd-networkd.

iwd.network(5), iwd.config(5), systemd.network(5). iwd takes WPA2 and WPA3 by one passphrase, and its files are named
by network rather than by interface, whose name nobody knows before the first start.
"""

from collections.abc import Iterator

from appliance.firstboot.planned import PlannedFile
from appliance.settings.network import NetworkSettings, StaticSettings, WifiSettings

_IWD = "var/lib/iwd"
_NETWORKD = "etc/systemd/network"
_HEAD = "# Written by rouse first-boot.\n"
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 _-")
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\r": "\\r", "\n": "\\n"})


def wifi_files(wifi: WifiSettings) -> Iterator[PlannedFile]:
    """Yield iwd's files for a network."""
    if wifi.country is not None:
        yield PlannedFile("etc/iwd/main.conf", f"{_HEAD}[General]\nCountry={wifi.country}\n".encode())
    if wifi.ssid is None:
        return
    name = wifi.ssid if set(wifi.ssid) <= _PLAIN else f"={wifi.ssid.encode().hex()}"
    lines = []
    if wifi.psk is not None:
        secret = wifi.psk.get_secret_value()
        key = "PreSharedKey" if len(secret) == 64 else "Passphrase"
        lines += ["[Security]", f"{key}={_value(secret)}"]
    lines += ["[Settings]", "AutoConnect=true", *(["Hidden=true"] if wifi.hidden else [])]
    suffix = "open" if wifi.psk is None else "psk"
    content = "".join(f"{line}\n" for line in lines)
    yield PlannedFile(f"{_IWD}/{name}.{suffix}", content.encode(), mode=0o600, adopted=True)


def network_files(network: NetworkSettings) -> Iterator[PlannedFile]:
    """Yield networkd's files. Without Wi-Fi and a fixed address there are none: a cable with DHCP is the default."""
    wireless, static = network.wifi.ssid is not None, network.static
    if wireless:
        fixed = static.address is not None and static.interface is None
        lines = _addresses(static) if fixed else ["DHCP=yes"]
        # iwd roams between access points, which is no loss of the network.
        content = ["[Match]", "Type=wlan", "[Network]", *lines, "IgnoreCarrierLoss=3s"]
        content += ["[DHCPv4]", "RouteMetric=600", "[IPv6AcceptRA]", "RouteMetric=600"]
        yield _network("20-rouse-wifi.network", content)
    if static.address is not None and (static.interface is not None or not wireless):
        match = f"Name={static.interface}" if static.interface is not None else "Type=ether"
        yield _network("10-rouse-static.network", ["[Match]", match, "[Network]", *_addresses(static)])


def _addresses(static: StaticSettings) -> list[str]:
    servers = static.dns or ((static.gateway,) if static.gateway is not None else ())
    gateway = [f"Gateway={static.gateway}"] if static.gateway is not None else []
    return [f"Address={static.address}", *gateway, *(f"DNS={server}" for server in servers)]


def _network(name: str, lines: list[str]) -> PlannedFile:
    return PlannedFile(f"{_NETWORKD}/{name}", (_HEAD + "".join(f"{line}\n" for line in lines)).encode())


def _value(text: str) -> str:
    """Write a value as iwd reads it back: white space at its beginning needs an escape."""
    escaped = text.translate(_ESCAPES)
    stripped = escaped.lstrip(" ")
    return "\\s" * (len(escaped) - len(stripped)) + stripped
