"""Machines in networks of their own: namespaces with a cable between them, and the commands that run there."""

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from typing import Any

from scripts.house.processes import child, tail

HUB, NODE = f"rpair-hub-{os.getpid()}", f"rpair-node-{os.getpid()}"
ADDRESSES = {HUB: "10.213.77.1", NODE: "10.213.77.2"}
BROKER_PORT, NODES_PORT = 18_830, 18_883
SECONDS = 90.0
ROOT = Path(__file__).parents[3]

type Told = dict[str, list[dict[str, str]]]


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, timeout=30)


@contextmanager
def two_networks() -> Iterator[None]:
    """Two network namespaces with one cable between them."""
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
        folder.mkdir(exist_ok=True)
        (folder / "rouse.toml").write_text(settings)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ROUSE_")}
        self.environment = {**kept, "ROUSE_CONFIG_DIR": str(folder), "PYTHONPATH": str(ROOT)}

    @property
    def secrets(self) -> Path:
        return self.folder / "state" / "secrets"

    def within(self, *command: str | Path) -> list[str | Path]:
        return ["ip", "netns", "exec", self.network, *command]

    def command(self, *arguments: str | Path) -> list[str | Path]:
        return self.within(sys.executable, "-m", *arguments)

    def running(self, *arguments: str | Path) -> AbstractAsyncContextManager[asyncio.subprocess.Process]:
        return child(self.command(*arguments), log=self.log, environment=self.environment)

    async def rouse(self, *arguments: str, typed: str = "") -> tuple[int, str]:
        """Run a command, and return its exit code and what it says."""
        return await self._run(self.command("appliance", *arguments), typed)

    async def python(self, program: str, *arguments: str | Path) -> tuple[int, str]:
        """Run a program there, and return its exit code and what it says."""
        return await self._run(self.within(sys.executable, "-c", program, *arguments), "")

    async def _run(self, command: list[str | Path], typed: str) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=self.environment,
        )
        async with asyncio.timeout(SECONDS):
            output, _ = await process.communicate(typed.encode())
        return process.returncode or 0, output.decode()


def node_settings(folder: Path, more: str = "") -> str:
    """Return what a node that is to be paired is told."""
    return f"""
[node]
name = "attic"
title = "Attic"
roles = ["expert"]
telemetry_interval = 2
[paths]
state = {json.dumps(str(folder / "state"))}
models = {json.dumps(str(ROOT / "build" / "models"))}
[pairing]
socket = {json.dumps(str(folder / "pairing.sock"))}
{more}
"""


def hub_settings(folder: Path, broker: str, more: str = "") -> str:
    """Return what a hub is told."""
    return f"""
[node]
name = "house"
roles = ["hub"]
[paths]
state = {json.dumps(str(folder / "state"))}
[broker]
{broker}
{more}
"""


EMBEDDED = f"""
listen_port = {BROKER_PORT}
nodes_host = "0.0.0.0"
nodes_port = {NODES_PORT}
"""


async def until_it_says(side: Side, text: str, *, times: int = 1) -> None:
    """Wait for a line in a machine's log."""
    try:
        async with asyncio.timeout(SECONDS):
            while not side.log.exists() or side.log.read_text().count(text) < times:
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"not said: {text}\n{tail(side.log, 60)}") from None


async def listed(hub: Side, good: Callable[[Told], bool]) -> Told:
    """Ask for the list of nodes until it is as expected."""
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


async def paired(hub: Side, node: Side) -> None:
    """Pair a node that waits, and wait until it is at work."""
    await listed(hub, lambda told: bool(told["waiting"]))
    code, output = await hub.rouse("pair", "attic", typed=await shown_code(node))
    assert (code, output) == (0, "attic belongs to this hub.\n"), tail(hub.log, 40)
    await connected(node)


async def connected(node: Side, *, whether: bool = True) -> None:
    """Wait until the node is at work and has its broker, or has lost it."""
    told: dict[str, Any] = {}
    try:
        async with asyncio.timeout(SECONDS):
            while True:
                try:
                    told = json.loads(await http_get(node, "http://127.0.0.1:8101/health"))
                except AssertionError:
                    told = {}
                if told.get("broker", {}).get("connected") is whether:
                    assert told["broker"]["address"] == f"{ADDRESSES[HUB]}:{NODES_PORT}"
                    return
                await asyncio.sleep(0.5)
    except TimeoutError:
        raise AssertionError(f"{told}\n{tail(node.log, 40)}") from None


async def http_get(side: Side, url: str, **headers: str) -> str:
    """Ask a server in a namespace."""
    ask = (
        "import json, sys, urllib.request\n"
        "opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))\n"
        "request = urllib.request.Request(sys.argv[1], headers=json.loads(sys.argv[2]))\n"
        "print(opener.open(request, timeout=5).read().decode())"
    )
    code, output = await side.python(ask, url, json.dumps(headers))
    assert code == 0, output[-300:]
    return output
