"""What must be known of recoveries after a restart: how often power was switched, and which ladders were under way.

It is written before a rung acts. A hub that is killed in the middle of a ladder so neither begins anew, which might
switch the power a second time, nor forgets that it did.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from appliance.bus.messages import Slug, UnixTime
from appliance.bus.waking_messages import RecoveryStep, RepairNotice
from appliance.durable_files import write
from appliance.power.recovery.rungs import RungName

_log = logging.getLogger(__name__)

type Problem = Literal["lost", "did_not_wake", "unreachable"]

DAY_SECONDS = 86_400.0
MAX_NODES = 1000


class _Kept(BaseModel):
    model_config = ConfigDict(extra="ignore")


class Begun(_Kept):
    """A ladder that is under way."""

    problem: Problem
    since: UnixTime
    """When the node was first missed."""
    asked: bool = False
    """Whether a person asked for it."""
    steps: tuple[RecoveryStep, ...] = ()
    """The rungs that are over."""
    acting: RungName | None = None
    """The rung that was about to act."""
    acting_since: UnixTime = 0.0


class Case(_Kept):
    """One node."""

    switched: tuple[UnixTime, ...] = ()
    """When its power was switched, in the last 24 hours."""
    failures: int = 0
    """Ladders in a row that came to nothing."""
    not_before: UnixTime = 0.0
    """When the next one may begin by itself."""
    begun: Begun | None = None
    notice: RepairNotice | None = None


class _File(_Kept):
    cases: dict[Slug, Case] = {}


class Ledger:
    """The file, and what it holds."""

    def __init__(self, path: Path) -> None:
        """Take where the file is; `load` reads it."""
        self._path = path
        self._cases: dict[str, Case] = {}

    def load(self) -> None:
        """Read the file. One that can't be read is put aside, as if no power had been switched."""
        try:
            self._cases = dict(_File.model_validate_json(self._path.read_bytes()).cases)
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            aside = self._path.with_suffix(".unreadable")
            _log.error("%s can't be read, and is put aside as %s: %s", self._path, aside, str(error)[:300])
            try:
                self._path.replace(aside)
            except OSError as failure:
                _log.error("%s: %s", aside, failure)

    @property
    def cases(self) -> Mapping[str, Case]:
        """All nodes of which there is something to know."""
        return dict(self._cases)

    def of(self, node: str) -> Case:
        """Return what is known of a node."""
        return self._cases.get(node, Case())

    def switched_lately(self, node: str, now: float) -> int:
        """Return how often its power was switched in the last 24 hours."""
        return sum(now - DAY_SECONDS < at <= now + DAY_SECONDS for at in self.of(node).switched)

    def write(self, node: str, case: Case, now: float) -> None:
        """Change what is known of a node; it is on the disk when this returns.

        Raises:
            OSError: the disk does not take it. What is in memory counts nevertheless.
        """
        lately = tuple(at for at in case.switched if now - DAY_SECONDS < at)
        kept = case.model_copy(update={"switched": lately})
        if kept == Case():
            self._cases.pop(node, None)
        elif node in self._cases or len(self._cases) < MAX_NODES:
            self._cases[node] = kept
        content = _File(cases=self._cases).model_dump_json(exclude_none=True).encode() + b"\n"
        write(self._path, content, mode=0o600)
