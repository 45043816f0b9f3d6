"""systemd-logind: suspend, power off, restart, inhibitor locks, sessions.

Interface: https://www.freedesktop.org/software/systemd/man/latest/org.freedesktop.login1.html
Inhibitor locks: https://systemd.io/INHIBITOR_LOCKS/
"""

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from appliance.node.dbus.connection import Appeared, Remote, SystemBus, expect
from appliance.node.dbus.errors import ServiceCallError

SERVICE = "org.freedesktop.login1"
MANAGER = Remote(SERVICE, "/org/freedesktop/login1", "org.freedesktop.login1.Manager")
SESSION = "org.freedesktop.login1.Session"

type Method = Literal["suspend", "poweroff"]
_CALLS: dict[Method, str] = {"suspend": "Suspend", "poweroff": "PowerOff"}


@dataclass(frozen=True, slots=True)
class Inhibitor:
    """A lock that some process holds."""

    what: frozenset[str]
    """`sleep`, `shutdown`, `idle` and others."""
    who: str
    why: str
    mode: str
    """`block`, `block-weak` or `delay`."""
    pid: int


@dataclass(frozen=True, slots=True)
class Session:
    """Someone who is logged in."""

    user: str
    seat: str
    """Empty for a remote session."""
    kind: str
    """`user`, `greeter`, `manager`, `background` and others."""
    state: str
    """`online`, `active` or `closing`."""


class Lock:
    """An inhibitor lock; it lasts until it is released, or this process ends."""

    def __init__(self, descriptor: int) -> None:
        """Take the file descriptor that keeps it."""
        self._descriptor: int | None = descriptor

    def release(self) -> None:
        """Give it back; harmless a second time."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = None


class Logind:
    """The manager of logins, seats and power."""

    def __init__(self, bus: SystemBus) -> None:
        """Take the system bus, before it is entered."""
        self._bus = bus

    def when_there(self, callback: Appeared) -> None:
        """Call back each time when logind is found."""
        self._bus.when_there(SERVICE, callback)

    def on_sleep(self, handler: Callable[[bool], None]) -> None:
        """Tell when the machine is about to sleep (True), and that it has woken or stayed awake (False)."""
        self._bus.listen(MANAGER, "PrepareForSleep", lambda body: handler(body == [True]))

    def on_shutdown(self, handler: Callable[[bool], None]) -> None:
        """Tell when the machine is about to go down (True), and that it stays up after all (False)."""
        self._bus.listen(MANAGER, "PrepareForShutdown", lambda body: handler(body == [True]))

    async def can(self, method: Method) -> str:
        """Return `yes`, `no`, `challenge` (a password would be needed) or `na` (the machine can't)."""
        return str(expect(await self._bus.call(MANAGER, f"Can{_CALLS[method]}"), "s")[0])

    async def put_down(self, method: Method) -> None:
        """Suspend the machine or power it off; returns when that has begun.

        Raises:
            NotAllowedError: this user may not, or someone blocks it.
            SystemBusError: it was not begun.
        """
        expect(await self._bus.call(MANAGER, _CALLS[method], "b", False), "")

    async def restart(self) -> None:
        """Restart the machine; returns when that has begun. Raises like `put_down`."""
        expect(await self._bus.call(MANAGER, "Reboot", "b", False), "")

    async def inhibit(self, what: str, *, why: str, mode: Literal["block", "delay"]) -> Lock:
        """Take a lock on one or several things, with `:` between them. Raises SystemBusError."""
        reply = await self._bus.call(MANAGER, "Inhibit", "ssss", what, "Rouse", why, mode)
        index = expect(reply, "h")[0]
        try:
            return Lock(reply.unix_fds[index])
        except IndexError as error:
            raise ServiceCallError("logind sent no file descriptor for the lock") from error

    async def inhibitors(self) -> tuple[Inhibitor, ...]:
        """Return all locks, our own too. Raises SystemBusError."""
        (rows,) = expect(await self._bus.call(MANAGER, "ListInhibitors"), "a(ssssuu)")
        return tuple(
            Inhibitor(frozenset(what.split(":")), who, why, mode, pid) for what, who, why, mode, _uid, pid in rows
        )

    async def sessions(self) -> tuple[Session, ...]:
        """Return who is logged in. Raises SystemBusError."""
        (rows,) = expect(await self._bus.call(MANAGER, "ListSessions"), "a(susso)")
        found = []
        for _id, _uid, user, seat, path in rows:
            session = Remote(SERVICE, path, SESSION)
            try:
                kind = str(await self._bus.get(session, "Class"))
                state = str(await self._bus.get(session, "State"))
            except ServiceCallError:
                continue  # it has ended meanwhile
            found.append(Session(user, seat, kind, state))
        return tuple(found)

    async def longest_delay(self) -> float:
        """Return for how many seconds a delay lock can hold the machine up. Raises SystemBusError."""
        return int(await self._bus.get(MANAGER, "InhibitDelayMaxUSec")) / 1e6

    async def about_to(self, what: Literal["sleep", "shutdown"]) -> bool:
        """Whether the machine is on its way to that at this moment. Raises SystemBusError."""
        return bool(await self._bus.get(MANAGER, f"PreparingFor{what.capitalize()}"))
