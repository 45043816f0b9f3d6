"""systemd's manager, for units of our own and for no others.

Interface: https://www.freedesktop.org/software/systemd/man/latest/org.freedesktop.systemd1.html
"""

import asyncio
import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from appliance.node.dbus.connection import Remote, SystemBus, expect
from appliance.node.dbus.errors import ServiceCallError

SERVICE = "org.freedesktop.systemd1"
MANAGER = Remote(SERVICE, "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager")
UNIT = "org.freedesktop.systemd1.Unit"
UNIT_SERVICE = "org.freedesktop.systemd1.Service"
JOB_SECONDS = 60.0
"""Longest wait for a job's end. A start lasts until the expert says READY=1, so nobody waits for that."""

WORKER = "(rpc-worker)"
"""Stands for the RPC worker where others have the name of an expert, which has no brackets."""

_PLAIN = frozenset(string.ascii_letters + string.digits + ":_.")


@dataclass(frozen=True, slots=True)
class UnitState:
    """What systemd knows of a service."""

    active: str
    """`active`, `activating`, `deactivating`, `inactive`, `failed` or `reloading`."""
    sub: str
    """`running`, `auto-restart` and others."""
    status: str
    """What the service last said by STATUS=; systemd forgets it when the service starts."""
    result: str
    """`success`, or why it failed: `exit-code`, `signal`, `watchdog`, `timeout`, …"""
    restarts: int
    """How often systemd has restarted it by itself."""


def escape(name: str) -> str:
    r"""Escape a name for a unit's instance, as systemd-escape(1) does: `big-one` becomes `big\x2done`."""
    escaped = []
    for index, byte in enumerate(name.encode()):
        character = chr(byte)
        if character == "/":
            escaped.append("-")
        elif character not in _PLAIN or (character == "." and index == 0):
            escaped.append(f"\\x{byte:02x}")
        else:
            escaped.append(character)
    return "".join(escaped)


def unit_name(expert: str) -> str:
    """Return the name of an expert's unit, or of the RPC worker's."""
    if expert == WORKER:
        return "rouse-rpc-worker.service"
    return f"rouse-expert@{escape(expert)}.service"


class Systemd:
    """Starts, stops and watches the units of experts."""

    def __init__(self, bus: SystemBus) -> None:
        """Take the system bus, before it is entered."""
        self._bus = bus
        self._jobs: list[tuple[str, str]] = []
        self._ended = asyncio.Event()
        self._waiting = 0
        bus.listen(MANAGER, "JobRemoved", self._take_job)
        bus.when_there(SERVICE, self._subscribe)

    async def start(self, expert: str) -> None:
        """Begin to start a unit; one that runs goes on. Raises SystemBusError."""
        await self._queue("StartUnit", expert)

    async def stop(self, expert: str) -> str:
        """Stop a unit and return the job's result: `done` is good. Raises SystemBusError."""
        return await self._result("StopUnit", expert)

    async def restart(self, expert: str) -> None:
        """Begin to restart a unit. Raises SystemBusError."""
        await self._queue("RestartUnit", expert)

    async def state(self, expert: str) -> UnitState:
        """Return how an expert's unit is; raises like `service_state`."""
        return await self.service_state(unit_name(expert))

    async def service_state(self, name: str) -> UnitState:
        """Return how a service is.

        Raises:
            NoSuchUnitError: there is no such unit.
            SystemBusError: systemd can't be asked.
        """
        (path,) = expect(await self._bus.call(MANAGER, "LoadUnit", "s", name), "o")
        unit, service = Remote(SERVICE, path, UNIT), Remote(SERVICE, path, UNIT_SERVICE)
        return UnitState(
            active=str(await self._bus.get(unit, "ActiveState")),
            sub=str(await self._bus.get(unit, "SubState")),
            status=str(await self._bus.get(service, "StatusText")),
            result=str(await self._bus.get(service, "Result")),
            restarts=int(await self._bus.get(service, "NRestarts")),
        )

    async def start_unit(self, unit: str) -> None:
        """Begin to start a unit that is no expert's. Raises SystemBusError."""
        expect(await self._bus.call(MANAGER, "StartUnit", "ss", unit, "replace"), "o")

    async def active_state(self, unit: str) -> str:
        """Return a unit's active state; it need not be a service. Raises like `state`."""
        (path,) = expect(await self._bus.call(MANAGER, "LoadUnit", "s", unit), "o")
        return str(await self._bus.get(Remote(SERVICE, path, UNIT), "ActiveState"))

    async def has_job(self, unit: str) -> bool:
        """Whether something is still to be done with a unit: it counts as inactive until its start begins.

        Raises like `state`.
        """
        (path,) = expect(await self._bus.call(MANAGER, "LoadUnit", "s", unit), "o")
        number, _job = await self._bus.get(Remote(SERVICE, path, UNIT), "Job")
        return bool(number)

    async def started_at(self) -> int:
        """Return when this boot's systemd was started, which tells one boot from another. Raises SystemBusError."""
        return int(await self._bus.get(MANAGER, "UserspaceTimestamp"))

    async def _subscribe(self) -> None:
        """Ask for signals: systemd sends none to nobody."""
        await self._bus.call(MANAGER, "Subscribe")

    async def _queue(self, method: Literal["StartUnit", "StopUnit", "RestartUnit"], expert: str) -> str:
        reply = await self._bus.call(MANAGER, method, "ss", unit_name(expert), "replace")
        return str(expect(reply, "o")[0])

    async def _result(self, method: Literal["StopUnit"], expert: str) -> str:
        self._waiting += 1
        try:
            job = await self._queue(method, expert)
            async with asyncio.timeout(JOB_SECONDS):
                while True:
                    for path, result in self._jobs:
                        if path == job:
                            return result
                    self._ended.clear()
                    await self._ended.wait()
        except TimeoutError as error:
            raise ServiceCallError(f"{unit_name(expert)}: its job did not end within {JOB_SECONDS:g} s") from error
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._jobs.clear()

    def _take_job(self, body: Sequence[Any]) -> None:
        if self._waiting:
            _id, job, _unit, result = body
            self._jobs.append((str(job), str(result)))
            self._ended.set()
