"""The inhibitor locks that this node holds: https://systemd.io/INHIBITOR_LOCKS/."""

import asyncio
import logging
from typing import Literal

from appliance.node.dbus.errors import NoSystemBusError, SystemBusError
from appliance.node.dbus.logind import Lock, Logind, Method

_log = logging.getLogger(__name__)

_REASONS = {"delay": "Saves what it knows and says goodbye", "block": "Answers a request"}
_WHAT = {"delay": ("sleep", "shutdown"), "block": ("sleep",)}
"""One lock each: for several things in one lock, logind asks polkit for a permission that has nothing to do with them
(`inhibit-handle-lid-switch`; systemd 252, method_inhibit)."""


RETRY_SECONDS = 60.0
"""Pause after logind has refused a lock."""


class Locks:
    """Delay locks nearly always, a block lock while something is generated.

    A lock that can't be had is said once and done without: it protects others' sleep from coming at a bad moment.
    """

    def __init__(self, logind: Logind) -> None:
        """Take logind; nothing is locked yet."""
        self._logind = logind
        self._held: dict[str, tuple[Lock, ...]] = {}
        self._refused: set[str] = set()
        self._not_before: dict[str, float] = {}

    @property
    def blocking(self) -> bool:
        """Whether sleep is forbidden at this moment."""
        return "block" in self._held

    def delays(self, method: Method) -> bool:
        """Whether logind will wait for us when the machine is put down so."""
        what = "sleep" if method == "suspend" else "shutdown"
        return "delay" in self._held and f"delay {what}" not in self._refused

    async def take(self, mode: Literal["delay", "block"], *, anew: bool = False) -> None:
        """Have a lock; `anew` also where there is one, because who gave it may have forgotten it."""
        now = asyncio.get_running_loop().time()
        if not anew and (mode in self._held or now < self._not_before.get(mode, now)):
            return
        taken = [lock for what in _WHAT[mode] if (lock := await self._try(what, mode)) is not None]
        self.release(mode)
        if taken:
            self._held[mode] = tuple(taken)
        if any(f"{mode} {what}" in self._refused for what in _WHAT[mode]):
            self._not_before[mode] = now + RETRY_SECONDS

    async def _try(self, what: str, mode: Literal["delay", "block"]) -> Lock | None:
        try:
            lock = await self._logind.inhibit(what, why=_REASONS[mode], mode=mode)
        except NoSystemBusError:
            return None
        except SystemBusError as error:
            if (refused := f"{mode} {what}") not in self._refused:
                self._refused.add(refused)
                _log.warning("no lock to %s %s: %s", mode, what, error)
            return None
        self._refused.discard(f"{mode} {what}")
        return lock

    def release(self, mode: Literal["delay", "block"]) -> None:
        """Give a lock back."""
        for lock in self._held.pop(mode, ()):
            lock.release()

    def release_all(self) -> None:
        """Give all back."""
        self.release("delay")
        self.release("block")
