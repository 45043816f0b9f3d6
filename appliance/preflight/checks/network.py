"""The network: cards, links, addresses, the way out, Wi-Fi's strength."""

import ipaddress
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from appliance.preflight.dump import Dump, measure
from appliance.preflight.result import ROLES, Result, listing
from appliance.preflight.wanted import Wanted

_UP = 0x1
"""IFF_UP of linux/if.h."""
_DEFAULT_V4, _GATEWAY_FLAG = "00000000", 0x2
_SLOW_MBITS = 100
_WEAK_DBM, _HARDLY_DBM = -70.0, -80.0
"""Received power: below the first, rates drop; below the second, links break."""
_LEAST_MTU, _USUAL_MTU = 1280, 1500
"""IPv6 wants the first (RFC 8200, section 5)."""


@dataclass(frozen=True, slots=True)
class Interface:
    """A network card, or what stands for one in a virtual machine."""

    name: str
    up: bool
    carrier: bool
    wireless: bool
    mtu: int | None
    mbits: int | None
    duplex: str | None
    address: str | None
    driver: str | None
    addresses: tuple[str, ...] = ()
    signal: float | None = None
    """dBm."""

    @property
    def text(self) -> str:
        """Describe it in a few words."""
        if not self.up:
            return f"{self.name} off"
        if not self.carrier:
            return f"{self.name} without {'a network' if self.wireless else 'a cable'}"
        speed = f" {self.mbits} Mbit/s" if self.mbits else ""
        return f"{self.name}{' Wi-Fi' if self.wireless else ''}{speed}"


def read_interfaces(dump: Dump) -> tuple[Interface, ...]:
    """Return the interfaces that are devices: no bridges, tunnels or loopback."""
    addresses = read_addresses(dump)
    found = []
    for name in dump.names("/sys/class/net"):
        folder = f"/sys/class/net/{name}"
        if dump.link(f"{folder}/device") is None:
            continue
        flags = dump.line(f"{folder}/flags") or "0"
        mbits = dump.number(f"{folder}/speed")
        found.append(
            Interface(
                name=name,
                up=bool(int(flags, 16) & _UP) if re.fullmatch("0x[0-9a-fA-F]{1,8}", flags) else False,
                carrier=dump.line(f"{folder}/carrier") == "1",
                wireless=dump.fact(f"wireless {name}") is not None,
                mtu=dump.number(f"{folder}/mtu"),
                mbits=mbits if mbits is not None and 0 < mbits < 1_000_000 else None,
                duplex=dump.line(f"{folder}/duplex"),
                address=dump.line(f"{folder}/address"),
                driver=dump.link(f"{folder}/device/driver"),
                addresses=tuple(addresses.get(name, ())),
                signal=_signal(dump, name),
            )
        )
    return tuple(found)


def read_addresses(dump: Dump) -> dict[str, list[str]]:
    """Return the addresses of each interface, without those of loopback."""
    found: dict[str, list[str]] = {}
    for line in (dump.command("addresses") or "").split("\n"):
        match = re.match(r"[0-9]+: ([^\s@:]+)\S*\s+inet6? ([0-9a-fA-F.:]+)/", line)
        if match is None:
            continue
        try:
            address = ipaddress.ip_address(match[2])
        except ValueError:
            continue
        if not address.is_loopback:
            found.setdefault(match[1], []).append(str(address))
    return found


def _signal(dump: Dump, name: str) -> float | None:
    match = re.search(r"signal: (-?[0-9]{1,3})(?:\.[0-9]+)? dBm", dump.command(f"iw {name}") or "")
    if match is None:
        pattern = rf"^\s*{re.escape(name)}:\s+\S+\s+\S+\s+(-?[0-9]{{1,3}})\."
        match = re.search(pattern, dump.file("/proc/net/wireless") or "", re.MULTILINE)
    return float(match[1]) if match is not None and int(match[1]) < 0 else None


def check_network(dump: Dump, _wanted: Wanted) -> Iterator[Result]:
    """Check links, addresses and the way out."""
    interfaces = read_interfaces(dump)
    working = [one for one in interfaces if one.up and one.carrier]
    yield link(
        interfaces, working, [name for name in read_addresses(dump) if name not in {one.name for one in interfaces}]
    )
    if working:
        yield speed(working)
        yield mtu(working)
    yield from (wifi(one) for one in working if one.wireless)
    yield addresses(dump)
    yield ipv6(dump)
    yield gateway(dump)


def link(interfaces: Sequence[Interface], working: Sequence[Interface], virtual: Sequence[str]) -> Result:
    """Check that one interface has a network; `virtual` are those with an address that are no card."""
    found = listing(one.text for one in interfaces) or "no network card"
    needed = "a card with a network; best a cable, by which it can also be woken"
    result = Result("network.link", "Network link", "ok", found, needed)
    if not working and virtual:
        found = f"{found}; only {listing(virtual)}, which is no card"
        remedy = "A container needs none; a machine does."
        return replace(result, verdict="warn", found=found, remedy=remedy, limits=("expert",))
    if not working:
        return replace(result, verdict="bad", remedy="Plug a cable in, or set up Wi-Fi.", unfit=ROLES)
    if all(one.wireless for one in working):
        remedy = "Use a cable where you can: Wi-Fi is slower, and most Wi-Fi cards can't be woken by packets."
        return replace(result, verdict="warn", remedy=remedy, limits=("hub", "expert", "vision"))
    return result


def speed(working: Sequence[Interface]) -> Result:
    """Check what the cables' links were negotiated to."""
    cables = [one for one in working if not one.wireless]
    known = [one for one in cables if one.mbits is not None]
    result = Result("network.speed", "Link speed", "ok", listing(one.text for one in known), "more than 100 Mbit/s")
    if not known:
        return replace(result, verdict="unknown", found="the driver does not tell a speed")
    half = [one.name for one in known if one.duplex == "half"]
    remedy = "Try another cable, port or switch."
    if half:
        return replace(result, verdict="warn", found=f"{result.found}, half duplex: {', '.join(half)}", remedy=remedy)
    if max(one.mbits or 0 for one in known) <= _SLOW_MBITS:
        needed = "more than 100 Mbit/s, for models to download and cameras; requests themselves are small"
        return replace(result, verdict="warn", needed=needed, remedy=remedy, limits=("vision",))
    return result


def mtu(working: Sequence[Interface]) -> Result:
    """Check the largest packet."""
    found = listing(f"{one.name} {one.mtu} bytes" for one in working if one.mtu is not None)
    small = min((one.mtu for one in working if one.mtu is not None), default=None)
    needed = f"{_USUAL_MTU} bytes, at least {_LEAST_MTU} for IPv6; an overlay network takes 60 to 80 of them"
    result = Result("network.mtu", "Packet size (MTU)", "ok", found, needed)
    if small is None:
        return replace(result, verdict="unknown", found="the kernel does not tell it")
    if small < _LEAST_MTU:
        return replace(result, verdict="warn", remedy="Set the interface's MTU to 1500, or what the network allows.")
    return result


def wifi(interface: Interface) -> Result:
    """Check how strong the access point is heard."""
    needed = f"{_WEAK_DBM:.0f} dBm or more: below that it gets slow, below {_HARDLY_DBM:.0f} dBm it breaks off"
    name, title = f"network.wifi.{interface.name}", f"Wi-Fi {interface.name}"
    if interface.signal is None:
        return Result(name, title, "unknown", "the driver tells no signal strength", needed)
    result = Result(name, title, "ok", f"{interface.signal:.0f} dBm", needed)
    remedy = "Move the machine or the access point closer, or use a cable."
    if interface.signal < _HARDLY_DBM:
        return replace(result, verdict="bad", remedy=remedy, unfit=("hub",), limits=ROLES)
    if interface.signal < _WEAK_DBM:
        return replace(result, verdict="warn", remedy=remedy, limits=("hub",))
    return result


def addresses(dump: Dump) -> Result:
    """Check that there is an address beside loopback's."""
    found = read_addresses(dump)
    usable = [
        f"{address} ({name})"
        for name, several in found.items()
        for address in several
        if not ipaddress.ip_address(address).is_link_local
    ]
    result = Result("network.addresses", "Addresses", "ok", listing(usable), "one that other machines reach")
    if dump.command("addresses") is None:
        return replace(result, verdict="unknown", found="the program ip (iproute2) is missing")
    if not usable:
        remedy = "See whether the router gives addresses (DHCP), or set network.static."
        return replace(result, verdict="bad", found="none", remedy=remedy, unfit=ROLES)
    return result


def ipv6(dump: Dump) -> Result:
    """Say whether there is IPv6; nothing needs it."""
    every = [ipaddress.ip_address(one) for several in read_addresses(dump).values() for one in several]
    sixes = [one for one in every if one.version == 6]
    found = "none"
    if sixes:
        found = "link-local only" if all(one.is_link_local for one in sixes) else "yes"
    return Result("network.ipv6", "IPv6", "ok", found, "nothing: IPv4 does")


def gateway(dump: Dump) -> Result:
    """Check the way out."""
    found = [f"{address} ({name})" for name, address in _gateways(dump)]
    needed = "a router, for updates, models and the time; without one everything else works"
    result = Result("network.gateway", "Gateway", "ok", listing(found), needed)
    if not found:
        return replace(result, verdict="warn", found="no default route", remedy="Set a gateway, if there is one.")
    return result


def _gateways(dump: Dump) -> Iterator[tuple[str, str]]:
    for line in (dump.file("/proc/net/route") or "").split("\n"):
        match = re.fullmatch(rf"(\S+)\t{_DEFAULT_V4}\t([0-9A-F]{{8}})\t[0-9A-F]{{3}}([0-9A-F])\t.*", line)
        if match is not None and int(match[3], 16) & _GATEWAY_FLAG:
            yield match[1], str(ipaddress.IPv4Address(bytes.fromhex(match[2])[::-1]))
    for line in (dump.file("/proc/net/ipv6_route") or "").split("\n"):
        match = re.fullmatch(r"0{32} 00 0{32} 00 ([0-9a-f]{32}) .* (\S+)", line.strip())
        if match is not None and int(match[1], 16):
            yield match[2], str(ipaddress.IPv6Address(bytes.fromhex(match[1])))


def reach(dump: Dump, wanted: Wanted) -> Iterator[Result]:
    """Check the way to the broker, where the settings name one."""
    if wanted.peer is None:
        return
    where = f"{wanted.peer.host}:{wanted.peer.port}"
    needed = f"a connection to {where} (broker.url) within a few milliseconds"
    result = Result("network.broker", "Broker", "ok", where, needed)
    told = dump.json("probe").get("peer")
    if isinstance(told, dict) and (seconds := measure(told.get("seconds"))) is not None:
        slow = seconds > 0.05
        found = f"{where} answers in {seconds * 1000:.1f} ms"
        remedy = "Every token crosses this way: use a cable, or a broker that is nearer." if slow else ""
        yield replace(result, verdict="warn" if slow else "ok", found=found, remedy=remedy)
        return
    names = dump.command("names")
    trip = re.search(r"= [0-9.]+/([0-9.]{1,12})/", dump.command("ping") or "")
    remedy = "See whether the broker runs, whether its name and port are right, and whether a firewall is between."
    if isinstance(told, dict):
        found = f"{where}: {str(told.get('error'))[:100]}"
        yield _no_broker(replace(result, found=found, remedy=remedy), wanted.peer.host)
    elif names == "":
        found = f"{wanted.peer.host}: the name is not known there"
        yield _no_broker(replace(result, found=found, remedy=remedy), wanted.peer.host)
    elif trip is not None:
        yield replace(
            result, verdict="unknown", found=f"{wanted.peer.host} answers ping in {trip[1]} ms; port not tried"
        )
    else:
        yield replace(result, verdict="unknown", found=f"{where} was not tried: no python3, and no answer to ping")


def _no_broker(result: Result, host: str) -> Result:
    """Judge that no broker was reached: the machine itself may be sound, and a hub's own comes with the deploy."""
    if host == "localhost" or host.startswith("127.") or host == "::1":
        remedy = "It comes with the deploy, or has to be started."
        return replace(result, verdict="warn", remedy=remedy)
    return replace(result, verdict="bad", limits=ROLES)
