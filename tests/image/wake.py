"""Two machines on one bridge: one sleeps (S3), the other wakes it with a magic packet.

QEMU's network cards can't wake a machine, so a listener stands in for the card: a raw socket on the sleeper's tap
device that looks for the pattern of a magic packet (six bytes of 255, sixteen times the address) anywhere in a frame,
as cards do, and then presses the power button (QMP's `system_wakeup`). Whether a card is armed (`ethtool wol g`) can't
be tested so.
"""

import asyncio
import os
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from image_build.machine import Machine

NAMESPACE = "rimg-wake"
BRIDGE = "rimgbr0"
HUB_TAP, NODE_TAP = "rimgtap0", "rimgtap1"
HUB_MAC, NODE_MAC = "52:54:00:77:00:01", "52:54:00:77:00:02"
HUB_ADDRESS, NODE_ADDRESS, BROADCAST = "10.77.0.1", "10.77.0.2", "10.77.0.255"
WITHIN = ("ip", "netns", "exec", NAMESPACE)

_ALL_FRAMES = 0x0003
_NETWORK = """
mkdir -p /run/systemd/network
cat > /run/systemd/network/10-wake.network <<'END'
[Match]
MACAddress={mac}
[Network]
Address={address}/24
LinkLocalAddressing=no
END
networkctl reload
"""
# The appliance's own library for magic packets.
SEND = "/usr/lib/rouse/bin/python -c \"import wakeonlan; wakeonlan.send_magic_packet('{mac}', ip_address='{address}')\""


@contextmanager
def bridged() -> Iterator[None]:
    """Make a network namespace with a bridge and two tap devices; only what is in it can be reached."""
    subprocess.run(["ip", "netns", "delete", NAMESPACE], check=False, capture_output=True)
    subprocess.run(["ip", "netns", "add", NAMESPACE], check=True)
    try:
        inside = ["ip", "-n", NAMESPACE]
        for command in (
            ["link", "add", BRIDGE, "type", "bridge", "forward_delay", "0"],
            *(["tuntap", "add", tap, "mode", "tap"] for tap in (HUB_TAP, NODE_TAP)),
            *(["link", "set", tap, "master", BRIDGE, "up"] for tap in (HUB_TAP, NODE_TAP)),
            ["link", "set", BRIDGE, "up"],
        ):
            subprocess.run([*inside, *command], check=True)
        yield
    finally:
        subprocess.run(["ip", "netns", "delete", NAMESPACE], check=False)


def packet_socket(device: str) -> socket.socket:
    """Return a raw socket on a device of the namespace; a socket stays in the namespace that it was made in."""

    def opened() -> socket.socket:
        with Path(f"/run/netns/{NAMESPACE}").open("rb") as namespace:
            os.setns(namespace.fileno(), os.CLONE_NEWNET)
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL_FRAMES))
        raw.bind((device, 0))
        raw.setblocking(False)
        return raw

    # A thread of its own: it can't come back from the namespace, and ends.
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(opened).result()


def is_magic(frame: bytes, mac: str) -> bool:
    """Tell whether a frame has the pattern that wakes this card."""
    return b"\xff" * 6 + bytes.fromhex(mac.replace(":", "")) * 16 in frame


@dataclass
class Card:
    """Stands in for the sleeper's network card."""

    machine: Machine
    mac: str
    seen: list[float] = field(default_factory=list)
    others: int = 0

    async def watch(self, raw: socket.socket) -> None:
        """Wake the machine on each magic packet for it; note the others."""
        loop = asyncio.get_running_loop()
        while True:
            frame = await loop.sock_recv(raw, 65_536)
            if is_magic(frame, self.mac):
                self.seen.append(time.monotonic())
                if await status(self.machine) == "suspended":
                    await self.machine.execute("system_wakeup")
            elif b"\xff" * 6 in frame[14:]:
                self.others += 1


@asynccontextmanager
async def card(machine: Machine, mac: str, tap: str) -> AsyncIterator[Card]:
    """Run a card for a machine."""
    raw = packet_socket(tap)
    found = Card(machine, mac)
    watching = asyncio.create_task(found.watch(raw), name="card")
    try:
        yield found
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        raw.close()


async def give_address(machine: Machine, mac: str, address: str) -> None:
    """Give a machine a fixed address on the bridge."""
    await machine.run(_NETWORK.format(mac=mac, address=address))
    await machine.run(
        f"for i in $(seq 60); do ip -br a | grep -q {address} && break; sleep 0.5; done; ip -br a | grep {address}", 60
    )


async def status(machine: Machine) -> str:
    """Return what QEMU says of the machine: running or suspended."""
    return str((await machine.execute("query-status"))["status"])
