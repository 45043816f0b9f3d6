"""The inhibitor locks that this node holds: https://systemd.io/INHIBITOR_LOCKS/."""

import logging
from typing import Literal

from appliance.node.dbus.errors import NoSystemBusError, SystemBusError
from appliance.node.dbus.logind import Lock, Logind

_log = logging.getLogger(__name__)

_REASONS = {"delay": "Saves what it knows and says goodbye", "block": "Answers a request"}
_WHAT = {"delay": "sleep:shutdown", "block": "sleep"}


class Locks:
    """A delay lock nearly always, a block lock while something is generated.

    A lock that can't be had is said once and done without: it protects others' sleep from coming at a bad moment.
    """

    def __init__(self, logind: Logind) -> None:
        """Take logind; nothing is locked yet."""
        self._logind = logind
        self._held: dict[str, Lock] = {}
        self._refused: set[str] = set()

    @property
    def blocking(self) -> bool:
        """Whether sleep is forbidden at this moment."""
        return "block" in self._held

    async def take(self, mode: Literal["delay", "block"], *, anew: bool = False) -> None:
        """Have a lock; `anew` also where there is one, because who gave it may have forgotten it."""
        if mode in self._held and not anew:
            return
        try:
            lock = await self._logind.inhibit(_WHAT[mode], why=_REASONS[mode], mode=mode)
        except NoSystemBusError:
            return
        except SystemBusError as error:
            if mode not in self._refused:
                self._refused.add(mode)
                _log.warning("no %s lock against sleep: %s", mode, error)
            return
        self._refused.discard(mode)
        self.release(mode)
        self._held[mode] = lock

    def release(self, mode: Literal["delay", "block"]) -> None:
        """Give a lock back."""
        if (lock := self._held.pop(mode, None)) is not None:
            lock.release()

    def release_all(self) -> None:
        """Give all back."""
        self.release("delay")
        self.release("block")
