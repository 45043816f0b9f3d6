"""systemd as the node sees it: units that are real processes with a notification socket."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dbus_next.message import Message
from dbus_next.signature import Variant

from tests.system.machine.service import Answer, Service, ServiceError, answer

PATH = "/org/freedesktop/systemd1"
MANAGER = "org.freedesktop.systemd1.Manager"
UNIT = "org.freedesktop.systemd1.Unit"
UNIT_SERVICE = "org.freedesktop.systemd1.Service"


@dataclass(eq=False)
class Unit:
    """A unit of Type=notify with Restart=on-failure."""

    name: str
    path: str
    active: str = "inactive"
    sub: str = "dead"
    status: str = ""
    result: str = "success"
    restarts: int = 0
    process: asyncio.subprocess.Process | None = None
    stopping: bool = False
    said: list[str] = field(default_factory=list)
    task: asyncio.Task[None] | None = None
    job: int = 0
    """Number of the job that has not begun."""


class FakeSystemd(Service):
    """Runs `command` of a unit's name for each unit that is started."""

    def __init__(self, address: str, folder: Path, command: Callable[[str], tuple[str, ...]]) -> None:
        super().__init__(address, "org.freedesktop.systemd1")
        self.units: dict[str, Unit] = {}
        self.known: Callable[[str], bool] = lambda name: name.startswith("rouse-expert@")
        self.refuses = False
        self.restart_limit = 3
        self.start_delay = 0.0
        """How long a job waits for others."""
        self._folder = folder
        self._command = command
        self._jobs = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        for member, method in {
            "Subscribe": lambda _: answer(),
            "LoadUnit": lambda message: answer("o", self._unit(message.body[0]).path),
            "StartUnit": self._start,
            "StopUnit": self._stop,
            "RestartUnit": self._restart,
        }.items():
            self.methods[PATH, member] = method
        self.properties[PATH, MANAGER, "UserspaceTimestamp"] = Variant("t", 1_795_000_000_000_000)

    async def __aexit__(self, *error: object) -> None:
        for unit in self.units.values():
            await self._end(unit)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.disconnect()

    def _unit(self, name: str) -> Unit:
        if name not in self.units:
            unit = Unit(name, f"{PATH}/unit/u{len(self.units)}")
            self.units[name] = unit
            self._show(unit)
        return self.units[name]

    def _show(self, unit: Unit) -> None:
        for interface, name, value in (
            (UNIT, "ActiveState", Variant("s", unit.active)),
            (UNIT, "SubState", Variant("s", unit.sub)),
            (UNIT, "Job", Variant("(uo)", [unit.job, "/"])),
            (UNIT_SERVICE, "StatusText", Variant("s", unit.status)),
            (UNIT_SERVICE, "Result", Variant("s", unit.result)),
            (UNIT_SERVICE, "NRestarts", Variant("u", unit.restarts)),
        ):
            self.properties[unit.path, interface, name] = value

    def _change(self, unit: Unit, **changes: Any) -> None:
        for name, value in changes.items():
            setattr(unit, name, value)
        self._show(unit)

    def _job(self, message: Message) -> tuple[Unit, str]:
        name, mode = message.body
        assert mode == "replace"
        if self.refuses:
            raise ServiceError(
                "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired", "Interactive authentication"
            )
        if not self.known(name):
            raise ServiceError("org.freedesktop.systemd1.NoSuchUnit", f"Unit {name} not found.")
        self._jobs += 1
        return self._unit(name), f"{PATH}/job/{self._jobs}"

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _start(self, message: Message) -> Answer:
        unit, job = self._job(message)
        if unit.active not in {"active", "activating"}:
            self._change(unit, job=self._jobs)
            self._spawn(self._begin(unit))
        return answer("o", job)

    async def _begin(self, unit: Unit) -> None:
        """Begin a start a little later: until then a unit is what it was, and has a job."""
        await asyncio.sleep(self.start_delay)
        self._change(unit, active="activating", sub="start", status="", restarts=0, stopping=False, job=0)
        unit.task = asyncio.create_task(self._run(unit))

    def _stop(self, message: Message) -> Answer:
        unit, job = self._job(message)
        self._spawn(self._stop_and_tell(unit, job))
        return answer("o", job)

    def _restart(self, message: Message) -> Answer:
        unit, job = self._job(message)

        async def restart() -> None:
            await self._end(unit)
            self._change(unit, active="activating", sub="start", status="", restarts=0, stopping=False)
            unit.task = asyncio.create_task(self._run(unit))

        self._spawn(restart())
        return answer("o", job)

    async def _stop_and_tell(self, unit: Unit, job: str) -> None:
        await self._end(unit)
        await self.signal(PATH, MANAGER, "JobRemoved", "uoss", 1, job, unit.name, "done")

    async def _end(self, unit: Unit) -> None:
        unit.stopping = True
        if unit.process is not None:
            with contextlib.suppress(ProcessLookupError):
                unit.process.terminate()
        if unit.task is not None:
            await unit.task

    async def _run(self, unit: Unit) -> None:
        """Run the process, and again when it fails, up to the limit."""
        while True:
            code = await self._run_once(unit)
            if unit.stopping or code == 0:
                self._change(unit, active="inactive", sub="dead", status="", result="success")
                return
            result = "signal" if code < 0 else "exit-code"
            if unit.restarts >= self.restart_limit:
                self._change(unit, active="failed", sub="failed", status="", result=result)
                return
            self._change(unit, active="activating", sub="auto-restart", result=result)
            await asyncio.sleep(0.2)
            self._change(unit, sub="start", status="", restarts=unit.restarts + 1)

    async def _run_once(self, unit: Unit) -> int:
        address = self._folder / f"notify-{unit.path.rpartition('/')[2]}"
        address.unlink(missing_ok=True)
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
            listening.bind(str(address))
            listening.setblocking(False)
            loop.add_reader(listening, self._hear, unit, listening)
            environment: Mapping[str, str] = {
                **os.environ,
                "NOTIFY_SOCKET": str(address),
                "WATCHDOG_USEC": "1000000",
            }
            unit.process = await asyncio.create_subprocess_exec(*self._command(unit.name), env=environment)
            if unit.stopping:
                unit.process.terminate()
            code = await unit.process.wait()
            loop.remove_reader(listening)
            return code

    def _hear(self, unit: Unit, listening: socket.socket) -> None:
        lines = listening.recv(8192).decode().splitlines()
        unit.said += lines
        for line in lines:
            variable, _, value = line.partition("=")
            if variable == "STATUS":
                self._change(unit, status=value)
            elif variable == "READY":
                self._change(unit, active="active", sub="running")
