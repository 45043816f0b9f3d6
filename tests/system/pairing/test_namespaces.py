"""A hub and a node in networks of their own: real multicast, real commands, from the flash to the house."""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from scripts.house.mosquitto import program
from scripts.house.processes import child, tail

HUB, NODE = "rpair-hub", "rpair-node"
ADDRESSES = {HUB: "10.213.77.1", NODE: "10.213.77.2"}
BROKER_PORT = 18_830
SECONDS = 90.0

pytestmark = [
    pytest.mark.root,
    pytest.mark.broker,
    pytest.mark.timeout(400),
    pytest.mark.skipif(os.geteuid() != 0 or shutil.which("ip") is None, reason="needs root and iproute2"),
    pytest.mark.skipif(program() is None, reason="mosquitto is not installed: apt-get install mosquitto"),
]


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, timeout=30)


@pytest.fixture
def networks() -> Iterator[None]:
    """Two network namespaces with one cable between them."""
    for name in (HUB, NODE):
        subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True, timeout=30)
    try:
        for name in (HUB, NODE):
            ip("netns", "add", name)
        ip("link", "add", "rpair0", "netns", HUB, "type", "veth", "peer", "name", "rpair1", "netns", NODE)
        for name, link in ((HUB, "rpair0"), (NODE, "rpair1")):
            ip("-n", name, "address", "add", f"{ADDRESSES[name]}/24", "dev", link)
            ip("-n", name, "link", "set", link, "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield
    finally:
        for name in (HUB, NODE):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True, timeout=30)


class Side:
    """A machine: a namespace and a folder."""

    def __init__(self, network: str, folder: Path, settings: str) -> None:
        self.network = network
        self.folder = folder
        self.log = folder / "log"
        folder.mkdir()
        (folder / "rouse.toml").write_text(settings)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ROUSE_")}
        self.environment = {**kept, "ROUSE_CONFIG_DIR": str(folder), "PYTHONPATH": str(Path(__file__).parents[3])}

    def command(self, *arguments: str | Path) -> list[str | Path]:
        return ["ip", "netns", "exec", self.network, sys.executable, "-m", *arguments]

    def running(self, *arguments: str | Path) -> AbstractAsyncContextManager[asyncio.subprocess.Process]:
        return child(self.command(*arguments), log=self.log, environment=self.environment)

    async def rouse(self, *arguments: str, typed: str = "") -> tuple[int, str]:
        """Run a command, and return its exit code and what it says."""
        process = await asyncio.create_subprocess_exec(
            *self.command("appliance", *arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=self.environment,
        )
        async with asyncio.timeout(SECONDS):
            output, _ = await process.communicate(typed.encode())
        return process.returncode or 0, output.decode()


@pytest.fixture
def sides(networks: None, tmp_path: Path) -> tuple[Side, Side]:  # noqa: ARG001 - the networks must be there
    secret = tmp_path / "broker.password"
    secret.write_text("house\n")
    hub = Side(
        HUB,
        tmp_path / "hub",
        f"""
[node]
name = "house"
roles = ["hub"]
[paths]
state = {json.dumps(str(tmp_path / "hub/state"))}
[broker]
url = "mqtt://127.0.0.1:{BROKER_PORT}"
username = "rouse"
password_file = {json.dumps(str(secret))}
""",
    )
    node = Side(
        NODE,
        tmp_path / "node",
        f"""
[node]
name = "attic"
title = "Attic"
roles = ["expert"]
telemetry_interval = 2
[paths]
state = {json.dumps(str(tmp_path / "node/state"))}
[pairing]
socket = {json.dumps(str(tmp_path / "node/pairing.sock"))}
""",
    )
    return hub, node


@pytest.fixture
async def hub(sides: tuple[Side, Side]) -> AsyncIterator[Side]:
    async with sides[0].running("tests.system.pairing.hub_main", sides[0].folder):
        yield sides[0]


async def listed(hub: Side, good: Callable[[dict[str, list[dict[str, str]]]], bool]) -> dict[str, list[dict[str, str]]]:
    """Ask for the list until it is as expected."""
    output = ""
    try:
        async with asyncio.timeout(SECONDS):
            while True:
                code, output = await hub.rouse("pair", "list", "--json")
                if code == 0 and good(told := json.loads(output)):
                    return dict(told)
                await asyncio.sleep(0.5)
    except TimeoutError:
        raise AssertionError(f"{output}\n{tail(hub.log, 40)}") from None


async def shown_code(node: Side) -> str:
    """Return the code that the node's screen shows."""
    async with asyncio.timeout(SECONDS):
        while True:
            _, shown = await node.rouse("console", "--once", "--plain")
            if found := re.search(r"code: (\d{4} \d{4})", shown):
                return found[1]
            await asyncio.sleep(0.5)


async def test_from_the_first_start_to_the_house_and_out_again(hub: Side, sides: tuple[Side, Side]) -> None:
    _, node = sides
    async with node.running("appliance", "node"):
        told = await listed(hub, lambda told: bool(told["waiting"]))
        offer = told["waiting"][0]
        assert (offer["node"], offer["title"], offer["state"]) == ("attic", "Attic", "open")
        assert offer["address"] == f"{ADDRESSES[NODE]}:8104"
        code = await shown_code(node)
        wrong = f"{(int(code.replace(' ', '')) + 1) % 10**8:08}"
        assert await hub.rouse("pair", "attic", typed=wrong) == (
            1,
            "rouse: The code is wrong. 4 attempts are left.\n",
        )
        exit_code, output = await hub.rouse("pair", "attic", typed=f"{code}\n")
        assert (exit_code, output) == (0, "attic belongs to this hub.\n"), tail(hub.log, 40)
        told = await listed(hub, lambda told: not told["waiting"] and told["paired"][0]["state"] == "paired")
        assert told["paired"][0]["fingerprint"] == offer["fingerprint"]
        await health(node)
        with pytest.raises(AssertionError):
            await http_get(node, 8104, "/pairing")
    for text in (tail(hub.log, 10_000), tail(node.log, 10_000)):
        assert code.replace(" ", "") not in text
        assert code not in text
    async with node.running("appliance", "node"):
        await health(node)
        assert await hub.rouse("pair", "forget", "attic") == (
            0,
            "attic belongs to this hub no more. To pair it anew, run rouse pair reset on it.\n",
        )
    assert (await node.rouse("pair", "reset"))[0] == 0
    assert not list((node.folder / "state").rglob("*.p*"))
    async with node.running("appliance", "node"):
        told = await listed(hub, lambda told: bool(told["waiting"]) and not told["paired"])
        assert told["waiting"][0]["fingerprint"] != offer["fingerprint"]
        assert (await hub.rouse("pair", "attic", typed=await shown_code(node)))[0] == 0


async def health(node: Side) -> None:
    """Wait until the node is at work and has its broker."""
    async with asyncio.timeout(SECONDS):
        while True:
            try:
                told = json.loads(await http_get(node, 8101, "/health"))
            except AssertionError:
                told = {}
            if told.get("broker", {}).get("connected"):
                assert told["broker"]["address"] == f"{ADDRESSES[HUB]}:{BROKER_PORT}"
                return
            await asyncio.sleep(0.5)


async def http_get(side: Side, port: int, path: str) -> str:
    """Ask a server in a namespace."""
    ask = (
        "import sys, urllib.request\n"
        "opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))\n"
        "print(opener.open(sys.argv[1], timeout=5).read().decode())"
    )
    process = await asyncio.create_subprocess_exec(
        "ip", "netns", "exec", side.network, sys.executable, "-c", ask, f"http://127.0.0.1:{port}{path}",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()[-300:]
    return output.decode()
