"""The router at work in the gateway: the active trained version, and rules when it can't serve."""

import contextlib
import logging
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from appliance.routing.decision import Decision
from appliance.routing.errors import RouterFilesError
from appliance.routing.files import load
from appliance.routing.model import TrainedRouter
from appliance.routing.rules import RulesRouter
from appliance.routing.versions import CURRENT, RouterVersions

_log = logging.getLogger(__name__)

type _Stamp = tuple[int, int] | None
"""Inode and time of the link `current`: another one after each activation."""


class LiveRouter:
    """Asks the version that `current` names, and follows when it names another.

    Reading a version takes longer than a decision may, so a thread does it, and the version before decides meanwhile.
    Without a version that can be used, and when an able expert is not known to it, the rules decide, and say why.
    """

    def __init__(self, *, folder: Path, rules: RulesRouter) -> None:
        self._versions = RouterVersions(folder)
        self._rules = rules
        self._loaded: TrainedRouter | None = None
        self._problem = ""
        self._stamp: _Stamp = None
        self._reading: threading.Thread | None = None

    def start(self) -> None:
        """Read the active version now, so that the first decision has it."""
        self._read(self._link_stamp())

    def choose(self, text: str, experts: Sequence[str]) -> Decision:
        """Rank the experts that could answer."""
        self._follow()
        router = self._loaded
        if router is None:
            return self._by_rules(text, experts, self._problem or "there is no trained router")
        unknown = router.unknown(experts)
        if unknown:
            names = ", ".join(unknown[:3])
            return self._by_rules(text, experts, f"the trained router {router.name} does not know {names}")
        return router.choose(text, experts)

    def settle(self) -> None:
        """Wait until what `choose` began to read has been read."""
        reading = self._reading
        if reading is not None:
            reading.join()

    def _by_rules(self, text: str, experts: Sequence[str], why: str) -> Decision:
        decision = self._rules.choose(text, experts)
        return replace(decision, reason=f"{decision.reason} (by rules: {why})")

    def _follow(self) -> None:
        if self._reading is not None and self._reading.is_alive():
            return
        stamp = self._link_stamp()
        if stamp != self._stamp:
            self._reading = threading.Thread(target=self._read, args=(stamp,), name="router-reader", daemon=True)
            self._reading.start()

    def _link_stamp(self) -> _Stamp:
        with contextlib.suppress(OSError):
            found = (self._versions.folder / CURRENT).lstat()
            return found.st_ino, found.st_mtime_ns
        return None

    def _read(self, stamp: _Stamp) -> None:
        # Kept whatever happens: a version that can't be read is tried once, and not anew for each request.
        self._stamp = stamp
        name = self._versions.current()
        loaded, problem = None, f"the trained router {name} is broken"
        try:
            loaded = load(self._versions.path(name)) if name is not None else None
            problem = "" if stamp is None or loaded is not None else "current is no link to a version"
        except RouterFilesError as error:
            _log.warning("the trained router can't be used, rules decide: %s", error)
        except Exception:  # noqa: BLE001 - logged; the requests go on by the rules
            _log.exception("the trained router %s can't be used, rules decide", name)
        if loaded is not None:
            _log.info("the trained router %s is at work", loaded.name)
        self._loaded, self._problem = loaded, problem
