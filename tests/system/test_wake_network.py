"""Magic packets on real interfaces, in network namespaces, as tcpdump sees them."""

import asyncio
import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from appliance.security.layout import secret_file
from scripts.house.processes import child, tail
from tests.system.machine.bus_daemon import program as dbus_program
from tests.system.waking.house import REPOSITORY, House, Sleeper

HUB, LAN = "rwake-hub", "rwake-lan"
FIRST, SECOND, TWIN = "10.213.78.1", "10.213.79.1", "10.213.78.2"
MACHINE = "10.213.78.9"
EVERYWHERE = "255.255.255.255"
PORT, OTHER_PORT = 9, 40_000
MAC = "02:00:00:78:00:09"
PACKET = b"\xff" * 6 + bytes.fromhex(MAC.replace(":", "")) * 16
ETHERNET_BROADCAST = b"\xff" * 6

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0 or shutil.which("ip") is None, reason="needs root and iproute2"),
    pytest.mark.skipif(shutil.which("tcpdump") is None, reason="tcpdump is not installed: apt-get install tcpdump"),
]


def ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, timeout=30, capture_output=True, text=True).stdout


def within(namespace: str) -> tuple[str, ...]:
    return ("ip", "netns", "exec", namespace)


@pytest.fixture
def network() -> Iterator[None]:
    """A hub with three interfaces, two of them in one network; the other ends are the LAN's."""
    for name in (HUB, LAN):
        subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True, timeout=30)
    try:
        for name in (HUB, LAN):
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        for number, address in enumerate((FIRST, SECOND, TWIN)):
            ip(
                "link",
                "add",
                f"rwh{number}",
                "netns",
                HUB,
                "type",
                "veth",
                "peer",
                "name",
                f"rwl{number}",
                "netns",
                LAN,
            )
            ip("-n", HUB, "address", "add", f"{address}/24", "dev", f"rwh{number}")
            ip("-n", HUB, "link", "set", f"rwh{number}", "up")
            ip("-n", LAN, "link", "set", f"rwl{number}", "up")
        ip("-n", LAN, "link", "set", "rwl0", "address", MAC)
        yield
    finally:
        for name in (HUB, LAN):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True, timeout=30)


@dataclass(frozen=True)
class Seen:
    """A UDP datagram in an Ethernet frame."""

    to_card: bytes
    source: str
    target: str
    port: int
    payload: bytes


class Capture:
    """tcpdump on one interface of the LAN."""

    def __init__(self, interface: str, folder: Path) -> None:
        self.interface = interface
        self.file = folder / f"{interface}.pcap"
        self.log = folder / f"{interface}.log"

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Capture"]:
        command = [
            *within(LAN), "tcpdump", "-i", self.interface, "--immediate-mode", "-n", "-U", "-Z", "root",
            "-w", str(self.file), f"udp and (dst port {PORT} or dst port {OTHER_PORT})",
        ]  # fmt: skip
        async with child(command, log=self.log, grace=5) as process:
            async with asyncio.timeout(30):
                while "listening on" not in tail(self.log):
                    assert process.returncode is None, tail(self.log)
                    await asyncio.sleep(0.02)
            yield self

    def seen(self) -> list[Seen]:
        """Return what was captured so far (https://www.tcpdump.org/manpages/pcap-savefile.5.html)."""
        content = self.file.read_bytes() if self.file.exists() else b""
        order = "<" if content[:4] == b"\xd4\xc3\xb2\xa1" else ">"
        found, position = [], 24
        while position + 16 <= len(content):
            (length,) = struct.unpack_from(f"{order}8xI", content, position)
            frame = content[position + 16 : position + 16 + length]
            position += 16 + length
            if len(frame) == length and frame[12:14] == b"\x08\x00":
                header = (frame[14] & 15) * 4
                source, target = (str(IPv4Address(frame[at : at + 4])) for at in (26, 30))
                (port,) = struct.unpack_from(">H", frame, 14 + header + 2)
                found.append(Seen(frame[:6], source, target, port, frame[14 + header + 8 :]))
        return found

    async def until(self, count: int) -> list[Seen]:
        try:
            async with asyncio.timeout(30):
                while len(self.seen()) < count:
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"{self.interface} has seen {self.seen()}") from None
        return self.seen()


SEND = """
import json, sys
from appliance.power.wake.packets import Caller
from appliance.settings.waking import WakeSettings
call = Caller(WakeSettings.model_validate(json.loads(sys.argv[1]))).call_of("attic", [sys.argv[2]])
sent = call.send()
print(json.dumps([sent.packets, sorted(sent.targets), sent.failures]))
"""


def send(**settings: Any) -> tuple[int, list[str], list[str]]:
    """Send one burst from the hub."""
    command = [*within(HUB), sys.executable, "-c", SEND, json.dumps(settings), MAC]
    done = subprocess.run(
        command,
        check=True,
        timeout=60,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    packets, targets, failures = json.loads(done.stdout)
    return packets, targets, failures


@asynccontextmanager
async def captures(folder: Path, interfaces: Sequence[str]) -> AsyncIterator[list[Capture]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(Capture(name, folder).running()) for name in interfaces]


async def test_every_interface_is_used_and_the_frames_are_broadcasts(network: None, tmp_path: Path) -> None:
    del network
    async with captures(tmp_path, ("rwl0", "rwl1", "rwl2")) as (first, second, twin):
        assert send() == (6, ["10.213.78.255", "10.213.79.255", EVERYWHERE], [])
        await second.until(2)
        await twin.until(1)
        await first.until(2)
        frames = [*first.seen(), *second.seen(), *twin.seen()]
        assert len(frames) == 6
        assert {frame.to_card for frame in frames} == {ETHERNET_BROADCAST}
        assert {frame.port for frame in frames} == {PORT}
        assert {frame.payload for frame in frames} == {PACKET}
        assert sorted((frame.source, frame.target) for frame in second.seen()) == [
            (SECOND, "10.213.79.255"),
            (SECOND, EVERYWHERE),
        ]
        # Of two interfaces in one network, the kernel sends the directed broadcast by the first; the other one is
        # reached by the limited broadcast.
        assert (FIRST, "10.213.78.255") in [(frame.source, frame.target) for frame in first.seen()]
        assert (TWIN, EVERYWHERE) in [(frame.source, frame.target) for frame in twin.seen()]


async def test_a_password_another_port_and_an_address_of_its_own(network: None, tmp_path: Path) -> None:
    del network
    password = tmp_path / "secureon"
    password.write_text("0a-0b-0c-0d-0e-0f\n")
    attic = {"secureon_file": str(password), "addresses": ["10.213.79.255"]}
    async with captures(tmp_path, ("rwl0", "rwl1")) as (first, second):
        assert send(port=OTHER_PORT, nodes={"attic": attic}) == (1, ["10.213.79.255"], [])
        (frame,) = await second.until(1)
        assert (frame.port, frame.payload) == (OTHER_PORT, PACKET + bytes.fromhex("0a0b0c0d0e0f"))
        assert first.seen() == []


async def test_an_interface_that_is_down_or_a_network_that_is_gone_stops_nothing(network: None, tmp_path: Path) -> None:
    del network
    ip("-n", HUB, "link", "set", "rwh1", "down")
    async with captures(tmp_path, ("rwl0",)) as (first,):
        packets, targets, failures = send()
        assert (packets, targets, failures) == (4, ["10.213.78.255", EVERYWHERE], [])
        await first.until(1)
        packets, targets, failures = send(addresses=["198.51.100.255", "10.213.78.255"])
        assert (packets, targets) == (1, ["10.213.78.255"])
        assert failures == ["198.51.100.255: Network is unreachable"]


@pytest.mark.broker
@pytest.mark.timeout(300)
@pytest.mark.skipif(dbus_program() is None, reason="dbus-daemon is not installed: apt-get install dbus")
async def test_many_requests_are_one_wake_over_a_real_network(network: None, tmp_path: Path) -> None:
    """Hub and machine each in their network: the machine's card is a raw socket on its interface."""
    del network
    ip("-n", LAN, "address", "add", f"{MACHINE}/24", "dev", "rwl0")
    house = House(tmp_path / "house", within=within(HUB), host=FIRST)
    # A second burst would come after half a minute only, so that what is seen is the first.
    house.configure("[wake]", "first_retry = 30", f'[wake.nodes.attic]\nmacs = ["{MAC}"]')
    sleeper = Sleeper(
        house, "attic", card={"interface": "rwl0"}, mac=MAC, within=within(LAN), host=MACHINE, broker=FIRST
    )  # fmt: skip
    async with house.hub_process(), sleeper.running():
        await answered(house, 1)
        code, said = await house.rouse("power", "sleep", "attic")
        assert (code, said) == (0, "attic is asleep.\n"), house.logs()
        async with captures(tmp_path, ("rwl0", "rwl1")) as (first, second):
            told = await asked(house, 30)
            assert [answer["status"] for answer in told["answers"]] == [200] * 30, house.logs()
            assert all(answer["body"]["rouse"]["woken"]["node"] == "attic" for answer in told["answers"])
            frames = await first.until(2)
            assert {frame.payload for frame in frames} == {PACKET}
            assert {frame.target for frame in frames} == {"10.213.78.255", EVERYWHERE}
            assert len({(frame.source, frame.target) for frame in frames}) == len(frames), "each way was used once"
            assert len(await second.until(2)) == 2
        assert sleeper.told("sleeps") == 1
        assert sleeper.told("asked_while_asleep") == 0
        assert 'rouse_power_wakes_total{cause="request",node="attic",outcome="woken"} 1.0' in told["metrics"]
        assert 'rouse_power_joined_wakes_total{node="attic"} 29.0' in told["metrics"]
        assert 'rouse_power_magic_packets_total{node="attic"} 6.0' in told["metrics"]


async def asked(house: House, count: int) -> Any:
    """Ask from the hub's network."""
    url = f"http://127.0.0.1:{house.gateway_port}"
    key = secret_file(house.state, "gateway.key")
    process = await asyncio.create_subprocess_exec(
        *house.python("tests.system.waking.ask", url, key, "large", str(count)),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=house.environment,
    )  # fmt: skip
    async with asyncio.timeout(110):
        output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()[-1000:]
    return json.loads(output)


async def answered(house: House, count: int) -> None:
    """Ask until all are answered: the machine must have joined first."""
    for _ in range(60):
        told = await asked(house, count)
        if all(answer["status"] == 200 for answer in told["answers"]):
            return
        await asyncio.sleep(0.2)
    raise AssertionError(house.logs())
