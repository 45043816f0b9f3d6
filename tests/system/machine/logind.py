"""logind as the node sees it: locks that end with their descriptors, sleeps that wait for them, polkit's refusals."""

import asyncio
import os
from dataclasses import dataclass, field
from typing import Any, Literal

from dbus_next.message import Message
from dbus_next.signature import Variant

from tests.system.machine.service import Answer, Service, ServiceError, answer

PATH = "/org/freedesktop/login1"
MANAGER = "org.freedesktop.login1.Manager"
OTHER_PROCESS = 4242
SESSION = "org.freedesktop.login1.Session"


@dataclass(eq=False)
class HeldLock:
    """A lock; its holder has the other end of a pipe."""

    what: frozenset[str]
    who: str
    why: str
    mode: str
    pid: int
    released: asyncio.Event = field(default_factory=asyncio.Event)


class FakeLogind(Service):
    """Suspends nothing, and says so to nobody: `put_down` lists what a real one would have done, and why then."""

    def __init__(self, address: str, *, longest_delay: float = 5.0) -> None:
        super().__init__(address, "org.freedesktop.login1")
        self.longest_delay = longest_delay
        self.locks: list[HeldLock] = []
        self.answers = {"CanSuspend": "yes", "CanPowerOff": "yes"}
        self.refuses = False
        """Whether polkit says no at the last moment."""
        self.people: list[tuple[str, str, str, str]] = []
        """User, seat, class and state of each session."""
        self.put_down: list[tuple[str, Literal["released", "out of patience"]]] = []
        self.down = asyncio.Event()
        self._descriptors: list[int] = []
        self._tasks: set[asyncio.Task[None]] = set()
        for member, method in {
            "Inhibit": self._inhibit,
            "ListInhibitors": self._list_inhibitors,
            "ListSessions": self._list_sessions,
            "CanSuspend": lambda _: answer("s", self.answers["CanSuspend"]),
            "CanPowerOff": lambda _: answer("s", self.answers["CanPowerOff"]),
            "Suspend": lambda message: self._begin(message, "suspend"),
            "PowerOff": lambda message: self._begin(message, "poweroff"),
            "Reboot": lambda message: self._begin(message, "poweroff"),
        }.items():
            self.methods[PATH, member] = method
        self._set("InhibitDelayMaxUSec", "t", round(longest_delay * 1e6))
        self._set("PreparingForSleep", "b", value=False)
        self._set("PreparingForShutdown", "b", value=False)

    def held(self, mode: str) -> list[HeldLock]:
        """The locks of a mode, those of others too."""
        return [lock for lock in self.locks if lock.mode == mode]

    def lock_of_another(self, what: str, *, who: str = "Backup", why: str = "Copies files") -> HeldLock:
        lock = HeldLock(frozenset(what.split(":")), who, why, "block", pid=OTHER_PROCESS)
        self.locks.append(lock)
        return lock

    async def close_lid(self) -> None:
        """Suspend as if the machine's user had asked for it."""
        await self._down("suspend")

    async def wake(self) -> None:
        """Let the machine wake up."""
        self.down.clear()
        await self._announce("suspend", starts=False)

    async def announce(self, what: Literal["suspend", "poweroff"], *, starts: bool) -> None:
        await self._announce(what, starts=starts)

    def disconnect(self) -> None:
        super().disconnect()
        for task in self._tasks:
            task.cancel()
        loop = asyncio.get_running_loop()
        for descriptor in self._descriptors:
            loop.remove_reader(descriptor)
            os.close(descriptor)
        self._descriptors.clear()
        self.locks = [lock for lock in self.locks if lock.pid == OTHER_PROCESS]

    def _set(self, name: str, signature: str, value: Any) -> None:
        self.properties[PATH, MANAGER, name] = Variant(signature, value)

    def _inhibit(self, message: Message) -> Answer:
        what, who, why, mode = message.body
        if ":" in what:  # the real one wants another permission for it, which the node does not have
            raise ServiceError("org.freedesktop.DBus.Error.AccessDenied", "Permission denied")
        reading, writing = os.pipe()
        lock = HeldLock(frozenset(what.split(":")), who, why, mode, os.getpid())
        loop = asyncio.get_running_loop()

        def ended() -> None:
            loop.remove_reader(reading)
            self._descriptors.remove(reading)
            os.close(reading)
            self.locks.remove(lock)
            lock.released.set()

        loop.add_reader(reading, ended)
        self._descriptors.append(reading)
        self.locks.append(lock)
        loop.call_later(0.05, os.close, writing)  # once dbus-next has sent it
        return answer("h", 0, descriptors=[writing])

    def _list_inhibitors(self, _message: Message) -> Answer:
        rows = [[":".join(sorted(lock.what)), lock.who, lock.why, lock.mode, 0, lock.pid] for lock in self.locks]
        return answer("a(ssssuu)", rows)

    def _list_sessions(self, _message: Message) -> Answer:
        rows = []
        for index, (user, seat, kind, state) in enumerate(self.people):
            path = f"{PATH}/session/_3{index}"
            self.properties[path, SESSION, "Class"] = Variant("s", kind)
            self.properties[path, SESSION, "State"] = Variant("s", state)
            rows.append([str(index), 1000, user, seat, path])
        return answer("a(susso)", rows)

    def _begin(self, message: Message, what: Literal["suspend", "poweroff"]) -> Answer:
        assert message.signature == "b"
        if self.refuses:
            raise ServiceError(
                "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired", "Interactive authentication required."
            )
        if any(
            {"sleep": "suspend", "shutdown": "poweroff"}.get(kind) == what
            for lock in self.held("block")
            for kind in lock.what
        ):
            raise ServiceError(
                "org.freedesktop.login1.BlockedByInhibitorLock", "Operation denied due to active block inhibitor"
            )
        task = asyncio.create_task(self._down(what))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return answer()

    async def _down(self, what: Literal["suspend", "poweroff"]) -> None:
        await self._announce(what, starts=True)
        waiting = [asyncio.create_task(lock.released.wait()) for lock in self.held("delay")]
        patient: Literal["released", "out of patience"] = "released"
        if waiting:
            _, late = await asyncio.wait(waiting, timeout=self.longest_delay)
            patient = "out of patience" if late else "released"
            for task in late:
                task.cancel()
        self.put_down.append((what, patient))
        self.down.set()

    async def _announce(self, what: Literal["suspend", "poweroff"], *, starts: bool) -> None:
        property_, member = {
            "suspend": ("PreparingForSleep", "PrepareForSleep"),
            "poweroff": ("PreparingForShutdown", "PrepareForShutdown"),
        }[what]
        self._set(property_, "b", starts)
        await self.signal(PATH, MANAGER, member, "b", starts)
