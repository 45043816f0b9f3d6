"""A hub and machines that sleep, as processes: the hub is `rouse hub` with its own broker."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from appliance.bus.client import Bus
from appliance.bus.connection import Connection
from appliance.bus.topics import (
    EXPERT_STATUS,
    NODE_ANNOUNCEMENT,
    NODE_POWER,
    NODE_STATUS,
    PLUG_COMMAND,
    REPAIR_NOTICE,
    Topic,
)
from appliance.security.audit import Entry, read_audit
from appliance.security.layout import secret_file
from scripts.house.processes import child, free_port, tail

REPOSITORY = Path(__file__).parents[3]
SECONDS = 60.0
MAC = "02:00:00:77:00:01"


class Listener:
    """A client that keeps what it hears last on each topic."""

    def __init__(self, connection: Connection) -> None:
        self.bus = Bus(connection, identifier=f"listener-{os.getpid()}-{id(self)}")
        self.latest: dict[str, Any] = {}
        topics: Sequence[Topic[Any]] = (
            NODE_STATUS,
            NODE_ANNOUNCEMENT,
            NODE_POWER,
            EXPERT_STATUS,
            REPAIR_NOTICE,
            PLUG_COMMAND,
        )
        for topic in topics:
            self.bus.subscribe(topic, self._noting(topic))

    def _noting(self, topic: Topic[Any]) -> Callable[..., Any]:
        async def note(message: Any, levels: Mapping[str, str]) -> None:
            self.latest[topic.at(**levels)] = message

        return note

    def power(self, node: str) -> str:
        return getattr(self.latest.get(NODE_POWER.at(node=node)), "state", "")

    def presence(self, node: str) -> str:
        return getattr(self.latest.get(NODE_STATUS.at(node=node)), "state", "")


class House:
    """A hub in a folder."""

    def __init__(self, folder: Path, *, within: Sequence[str] = (), host: str = "127.0.0.1") -> None:
        self.folder = folder
        self.within = tuple(within)
        self.host = host
        self.state = folder / "state"
        self.broker_port = free_port()
        self.gateway_port = free_port()
        self.log = folder / "hub.log"
        self.http: aiohttp.ClientSession
        self.hub: Process
        self.path = os.environ.get("PATH", "")

    def configure(self, *sections: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        lines = [
            "[node]",
            'name = "house"',
            'roles = ["hub"]',
            "[paths]",
            f"state = {json.dumps(str(self.state))}",
            "[broker]",
            f'listen_host = "{"0.0.0.0" if self.within else "127.0.0.1"}"',  # noqa: S104 - in a namespace of its own
            f"listen_port = {self.broker_port}",
            *sections,
        ]
        (self.folder / "rouse.toml").write_text("\n".join(lines) + "\n")

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ROUSE_")}
        return {
            **kept,
            "ROUSE_CONFIG_DIR": str(self.folder),
            "ROUSE_GATEWAY__PORT": str(self.gateway_port),
            "PYTHONPATH": str(REPOSITORY),
            "PATH": self.path,
        }

    def secret(self, name: str) -> str:
        return secret_file(self.state, name).read_text().strip()

    def python(self, *arguments: str | Path) -> list[str | Path]:
        return [*self.within, sys.executable, "-m", *arguments]

    @asynccontextmanager
    async def hub_process(self) -> AsyncIterator[Process]:
        async with child(self.python("appliance", "hub"), log=self.log, environment=self.environment) as process:
            await self.until(
                lambda: "the gateway answers at" in tail(self.log, 1000).rpartition("--- started")[2], "the hub"
            )
            yield process

    async def kill_hub(self, process: Process) -> None:
        """Kill -9, and wait for the end."""
        process.send_signal(signal.SIGKILL)
        await process.wait()
        with self.log.open("a") as log:
            log.write("--- started\n")

    async def until(self, condition: Callable[[], Any], what: str, seconds: float = SECONDS) -> None:
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"not seen: {what}\n{self.logs()}") from None

    def logs(self) -> str:
        return "\n".join(f"--- {log.name}\n{tail(log, 40)}" for log in sorted(self.folder.glob("*.log")))

    def connection(self) -> Connection:
        password = self.secret("broker-homeassistant.password")
        return Connection(self.host, self.broker_port, "homeassistant", password)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Listener]:
        listener = Listener(self.connection())
        async with listener.bus:
            await listener.bus.wait_connected(SECONDS)
            yield listener

    async def chat(self, http: aiohttp.ClientSession, model: str = "large", **body: Any) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {self.secret('gateway.key')}"}
        url = f"http://{self.host}:{self.gateway_port}/v1/chat/completions"
        request = {"model": model, "messages": [{"role": "user", "content": "Hello."}], **body}
        async with http.post(url, json=request, headers=headers) as response:
            return response.status, await response.json()

    async def metrics(self, http: aiohttp.ClientSession) -> str:
        headers = {"Authorization": f"Bearer {self.secret('gateway.key')}"}
        async with http.get(f"http://{self.host}:{self.gateway_port}/metrics", headers=headers) as response:
            return await response.text()

    async def rouse(self, *arguments: str) -> tuple[int, str]:
        """Run a command on the hub's machine, and return its exit code and what it says."""
        process = await asyncio.create_subprocess_exec(
            *self.python("appliance", *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=self.environment,
        )
        async with asyncio.timeout(SECONDS):
            output, _ = await process.communicate()
        return process.returncode or 0, output.decode()

    def audit(self) -> list[Entry]:
        """Return what was done to machines; the hub's certificates are in the log as well."""
        entries = read_audit(self.state / "hub" / "audit.jsonl", last=1000)
        return [entry for entry in entries if not entry.what.startswith("certificate.")]


class Sleeper:
    """One machine of the house."""

    def __init__(
        self,
        house: House,
        name: str,
        *,
        card: Mapping[str, Any],
        mac: str = MAC,
        expert: str = "large",
        within: Sequence[str] = (),
        host: str = "127.0.0.1",
        broker: str = "127.0.0.1",
        **more: Any,
    ) -> None:
        self.house = house
        self.name = name
        self.expert = expert
        self.within = tuple(within)
        self.folder = house.folder / name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.journal = self.folder / "journal.json"
        self.config = {
            "node": name,
            "expert": expert,
            "host": host,
            "broker": [broker, house.broker_port],
            "state": str(self.folder / "state"),
            "journal": str(self.journal),
            "card": dict(card),
            "mac": mac,
            **more,
        }
        self.process: Process

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Sleeper"]:
        config = self.folder / "config.json"
        config.write_text(json.dumps({**self.config, "password": self.house.secret("broker-rouse.password")}))
        command: list[str | Path] = [*self.within, sys.executable, "-m", "tests.system.waking.sleeper", config]
        log = self.house.folder / f"{self.name}.log"
        async with child(command, log=log, environment={**self.house.environment}) as self.process:
            yield self

    def told(self, what: str) -> Any:
        return json.loads(self.journal.read_text()).get(what) if self.journal.exists() else None

    async def cut_power(self) -> None:
        """End it and all that it started, without a word."""
        machine = psutil.Process(int(self.told("pid")))
        for process in (machine, *machine.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        await self.process.wait()

    async def goes_to_sleep(self, listener: Listener) -> None:
        code, said = await self.house.rouse("power", "sleep", self.name)
        assert code == 0, said
        await self.house.until(lambda: self.told("asleep"), f"{self.name} asleep")
        await self.house.until(
            lambda: listener.power(self.name) == "asleep" and listener.presence(self.name) == "offline",
            f"{self.name} said goodbye",
        )

    async def is_ready(self, listener: Listener) -> None:
        def ready() -> bool:
            status = listener.latest.get(EXPERT_STATUS.at(node=self.name, expert=self.expert))
            return (
                getattr(status, "state", "") == "ready"
                and listener.power(self.name) == "awake"
                and listener.presence(self.name) == "online"
            )

        await self.house.until(ready, f"{self.name} ready")


@asynccontextmanager
async def clients(house: House) -> AsyncIterator[tuple[Listener, aiohttp.ClientSession]]:
    """A listener on the bus, and an HTTP client."""
    async with AsyncExitStack() as stack:
        timeout = aiohttp.ClientTimeout(100)
        http = await stack.enter_async_context(aiohttp.ClientSession(timeout=timeout))
        listener = await stack.enter_async_context(house.listening())
        yield listener, http
