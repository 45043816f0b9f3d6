"""Magic packets: where they are sent, and what is in them.

A packet is six bytes of 255, sixteen times the hardware address, and perhaps a SecureOn password (AMD, "Magic Packet
Technology", publication 20213). A network card recognises it anywhere in a frame, so that UDP and its port are a
convention. A machine that sleeps answers no ARP: the packet must be a broadcast. To the network's own address it goes
out of the interface that the network is on; 255.255.255.255 goes out where the socket is bound to, and so also reaches
a second interface in the same network.
"""

import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

import psutil
import wakeonlan

from appliance.power.errors import NotWokenError
from appliance.security.secrets import SecretError, read_secret
from appliance.settings.waking import WakeNodeSettings, WakeSettings

EVERYWHERE = "255.255.255.255"
INTERFACES = Path("/sys/class/net")
_UP = frozenset({"up", "unknown"})
"""Operational states (RFC 2863) of interfaces that may carry packets; tunnels and bridges often know none."""
_HEX = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True, order=True)
class Way:
    """One way out for a packet."""

    target: str
    """The address that it is sent to."""
    source: str | None = None
    """The address of the interface that it leaves by; None lets the kernel choose."""


@dataclass(frozen=True, slots=True)
class Call:
    """What wakes one node."""

    macs: tuple[str, ...]
    ways: tuple[Way, ...]
    port: int
    password: str | None = field(default=None, repr=False)

    def send(self) -> "Sent":
        """Send one packet for each hardware address on each way. It blocks for some microseconds each."""
        sent: list[str] = []
        failed: list[str] = []
        names = [mac if self.password is None else f"{mac}/{self.password}" for mac in self.macs]
        for way in self.ways:
            try:
                wakeonlan.wake(*names, host=way.target, port=self.port, interface=way.source, family=socket.AF_INET)
            except OSError as error:
                failed.append(f"{way.target}: {error.strerror or error}")
            else:
                sent.append(way.target)
        return Sent(len(sent) * len(self.macs), tuple(dict.fromkeys(sent)), tuple(failed))


@dataclass(frozen=True, slots=True)
class Sent:
    """What was sent."""

    packets: int
    targets: tuple[str, ...]
    failures: tuple[str, ...]
    """A sentence for each way on which nothing could be sent."""


class Caller:
    """Knows how each node is called."""

    def __init__(self, settings: WakeSettings) -> None:
        self._settings = settings

    def call_of(self, node: str, announced: Sequence[str]) -> Call:
        """Return what wakes a node, given the hardware addresses that it announced. It reads the disk.

        Raises:
            NotWokenError: no hardware address is known, there is no way out, or the password can't be used.
        """
        special = self._settings.nodes.get(node, WakeNodeSettings())
        macs = tuple(special.macs or announced)
        if not macs:
            raise NotWokenError(
                f"no hardware address of {node} is known; set wake.nodes.{node}.macs, or let it be awake once"
            )
        addresses = special.addresses or self._settings.addresses
        try:
            ways = tuple(Way(address) for address in addresses) if addresses else ways_out()
        except OSError as error:
            raise NotWokenError(
                f"{node} can't be called: the network interfaces can't be read ({error}); set wake.addresses"
            ) from error
        if not ways:
            raise NotWokenError(f"{node} can't be called: this machine is in no network; see wake.addresses")
        password = _secureon(special.secureon_file) if special.secureon_file is not None else None
        return Call(macs, ways, self._settings.port, password)


def ways_out(addresses: Mapping[str, Sequence[Any]] | None = None, *, interfaces: Path = INTERFACES) -> tuple[Way, ...]:
    """Return the ways into every IPv4 network that this machine is in, but loopback and links to a single peer."""
    addresses = psutil.net_if_addrs() if addresses is None else addresses
    return tuple(sorted(set(_ways(addresses, interfaces))))


def _ways(addresses: Mapping[str, Sequence[Any]], interfaces: Path) -> Iterable[Way]:
    for name, of_interface in addresses.items():
        if not _is_up(interfaces / name.partition(":")[0]):
            continue
        for one in of_interface:
            if one.family != socket.AF_INET or not one.netmask or one.ptp:
                continue
            interface = IPv4Interface(f"{one.address}/{one.netmask}")
            if interface.ip.is_loopback or interface.network.prefixlen > 30:
                continue
            yield Way(str(interface.network.broadcast_address), one.address)
            yield Way(EVERYWHERE, one.address)


def _is_up(interface: Path) -> bool:
    # The hub's sandbox hides /proc/net, which psutil.net_if_stats() reads.
    try:
        return (interface / "operstate").read_text(encoding="ascii").strip() in _UP
    except FileNotFoundError:
        return False


def _secureon(file: Path) -> str:
    try:
        password = read_secret(file)
    except SecretError as error:
        raise NotWokenError(str(error)) from error
    digits = password.lower().replace(":", "").replace("-", "")
    if len(digits) != 12 or not _HEX.issuperset(digits):
        raise NotWokenError(f"{file}: is no SecureOn password; it is written as 01:23:45:67:89:ab")
    return digits
