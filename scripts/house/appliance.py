"""The appliance's own processes on this machine: hub and node, as systemd would start them."""

import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from scripts.house.processes import child

REPOSITORY = Path(__file__).parents[2]
MODEL = REPOSITORY / "build" / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"


@dataclass(frozen=True, slots=True)
class Appliance:
    """A configured appliance in a folder of its own."""

    folder: Path
    broker_port: int
    gateway_port: int
    password: str | None = None
    """Of an external broker at `broker_port`; without it the hub starts its own."""
    experts: Mapping[str, Path] = None  # type: ignore[assignment]

    def configure(self) -> None:
        """Write the configuration files."""
        experts = self.experts or {"small": MODEL}
        lines = [
            "[node]",
            'name = "demo"',
            'title = "This computer"',
            "telemetry_interval = 2",
            "[paths]",
            f"state = {json.dumps(str(self.folder / 'state'))}",
            f"models = {json.dumps(str(MODEL.parent))}",
            "[gateway]",
            f"port = {self.gateway_port}",
            "[broker]",
            *self._broker_lines(),
        ]
        for name, model in experts.items():
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
        return (self.folder / "state" / "secrets" / name).read_text().strip()

    def log(self, name: str) -> Path:
        """Return where a process writes its log."""
        return self.folder / "logs" / f"{name}.log"

    @asynccontextmanager
    async def process(self, name: str) -> AsyncIterator[None]:
        """Run `rouse NAME` until the context ends."""
        command = [sys.executable, "-m", "appliance", name]
        async with child(command, log=self.log(name), environment=self.environment):
            yield

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the hub and the node."""
        async with AsyncExitStack() as stack:
            for name in ("hub", "node"):
                await stack.enter_async_context(self.process(name))
            yield
