"""Tells systemd how a service is doing, by its notification protocol.

A datagram of `VARIABLE=value` lines goes to the socket that $NOTIFY_SOCKET names; where there is none, nothing is
said. Protocol: sd_notify(3), "Notes"; https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html. The
Python packages for it are abandoned, or bring a compiled binding to libsystemd for this one datagram.
"""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping

_log = logging.getLogger(__name__)

VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
"""What systemd puts into a service's environment for this, and what no child of the service should inherit."""


class ServiceManager:
    """Whoever started this process, if it wants to know how it is doing."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Take the process's environment."""
        self._address = _address(environment.get("NOTIFY_SOCKET", ""))
        self._interval = _interval(environment)

    @property
    def listens(self) -> bool:
        """Whether anybody wants to know."""
        return self._address is not None

    def ready(self, status: str | None = None) -> None:
        """Say that the start is complete, and what is true now."""
        self._tell("READY=1", *_status(status))

    def status(self, text: str) -> None:
        """Say in one line what the service is doing; `systemctl status` shows it."""
        self._tell(*_status(text))

    def stopping(self) -> None:
        """Say that the service is about to end."""
        self._tell("STOPPING=1")

    async def keep_alive(self, check: Callable[[], Awaitable[object]] | None = None) -> None:
        """Feed the watchdog twice as often as it wants, for ever; without a watchdog, do nothing for ever.

        Args:
            check: must return before each sign of life; one that hangs has the service restarted.
        """
        while True:
            if self._interval is None:
                await asyncio.Event().wait()
                return
            if check is not None:
                await check()
            self._tell("WATCHDOG=1")
            await asyncio.sleep(self._interval / 2)

    def _tell(self, *lines: str) -> None:
        if self._address is None:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.setblocking(False)
            try:
                sender.sendto("\n".join(lines).encode(), self._address)
            except OSError as error:
                _log.warning("the service manager can't be told %s: %s", lines[0], error)


def without_notification(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment for children, which are not the service that the service manager watches."""
    return {name: value for name, value in environment.items() if name not in VARIABLES}


def _address(name: str) -> str | None:
    """Return the socket's address; `@` stands for the abstract namespace."""
    if name.startswith("@"):
        return "\0" + name[1:]
    return name if name.startswith("/") else None


def _interval(environment: Mapping[str, str]) -> float | None:
    """Return the watchdog's period in seconds (sd_watchdog_enabled(3)), or None if it is not for this process."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    with contextlib.suppress(ValueError):
        microseconds = int(environment.get("WATCHDOG_USEC", ""))
        return microseconds / 1e6 if microseconds > 0 else None
    return None


def _status(text: str | None) -> tuple[str, ...]:
    return () if text is None else (f"STATUS={' '.join(text.splitlines())}",)
