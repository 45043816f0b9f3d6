"""The appliance's own processes on this machine: hub and node, as systemd would start them."""

import asyncio
import contextlib
import json
import os
import sys
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import aiohttp

from appliance.security.layout import secret_file
from scripts.house.processes import child

REPOSITORY = Path(__file__).parents[2]
MODEL = REPOSITORY / "build" / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
ONE_EXPERT: Mapping[str, Path] = MappingProxyType({"small": MODEL})
START_SECONDS = 90


class ApplianceError(Exception):
    """The appliance did not start; its logs say why."""


@dataclass(frozen=True, slots=True)
class Appliance:
    """A configured appliance in a folder of its own."""

    folder: Path
    broker_port: int
    gateway_port: int
    password: str | None = None
    """Of an external broker at `broker_port`; without it the hub starts its own."""
    experts: Mapping[str, Path] = ONE_EXPERT
    """Model files by name."""

    def configure(self) -> None:
        """Write the configuration files."""
        lines = [
            "[node]",
            'name = "demo"',
            'title = "This computer"',
            "telemetry_interval = 2",
            "status_port = 0",
            "[paths]",
            f"state = {json.dumps(str(self.folder / 'state'))}",
            f"models = {json.dumps(str(MODEL.parent))}",
            "[gateway]",
            f"port = {self.gateway_port}",
            "[broker]",
            *self._broker_lines(),
        ]
        for name, model in self.experts.items():
            lines += [f"[experts.{name}]", f"model = {json.dumps(str(model))}"]
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "rouse.toml").write_text("\n".join(lines) + "\n")

    def _broker_lines(self) -> list[str]:
        if self.password is None:
            return [f"listen_port = {self.broker_port}"]
        file = self.folder / "broker.password"
        self.folder.mkdir(parents=True, exist_ok=True)
        file.write_text(self.password + "\n")
        file.chmod(0o600)
        return [
            f'url = "mqtt://127.0.0.1:{self.broker_port}"',
            'username = "rouse"',
            f"password_file = {json.dumps(str(file))}",
        ]

    @property
    def environment(self) -> dict[str, str]:
        """What tells the processes where their configuration is."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ROUSE_")}
        return {**kept, "ROUSE_CONFIG_DIR": str(self.folder)}

    def secret(self, name: str) -> str:
        """Return one of the secrets that the hub made."""
        return secret_file(self.folder / "state", name).read_text().strip()

    def log(self, name: str) -> Path:
        """Return where a process writes its log."""
        return self.folder / "logs" / f"{name}.log"

    @asynccontextmanager
    async def process(self, name: str) -> AsyncIterator[Process]:
        """Run `rouse NAME` until the context ends."""
        command = [sys.executable, "-m", "appliance", name]
        async with child(command, log=self.log(name), environment=self.environment) as process:
            yield process

    @asynccontextmanager
    async def running(self, http: aiohttp.ClientSession) -> AsyncIterator[None]:
        """Run the hub and the node until the context ends; they serve an expert.

        Raises:
            ApplianceError: they ended, or serve none.
        """
        async with AsyncExitStack() as stack:
            processes = {name: await stack.enter_async_context(self.process(name)) for name in ("hub", "node")}
            await self._until_served(http, processes)
            yield

    async def _until_served(self, http: aiohttp.ClientSession, processes: Mapping[str, Process]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            for name, process in processes.items():
                if process.returncode is not None:
                    raise ApplianceError(f"`rouse {name}` ended with code {process.returncode}")
            with contextlib.suppress(aiohttp.ClientError):
                async with http.get(f"http://127.0.0.1:{self.gateway_port}/health") as response:
                    if (await response.json())["experts"]:
                        return
            await asyncio.sleep(0.1)
        raise ApplianceError(f"no expert is ready after {START_SECONDS} s")
