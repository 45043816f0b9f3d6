"""Keeps the learned demand on disk, and the plain list of requests that the simulator can replay.

In its folder: `demand.json`, written whole at most once a minute, and `requests.csv` with a line for each request,
`1764338400.1,small`. Both tell when somebody is at home and talks to the house: they are for the service's user only.
When the list is full it becomes `requests.1.csv`, and the one before that goes.
"""

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import tzinfo
from pathlib import Path

from pydantic import ValidationError

from appliance import durable_files
from appliance.power.demand import Demand, DemandState

_log = logging.getLogger(__name__)

SAVE_SECONDS = 60.0
"""What may be lost when the power goes."""
MOST_LIST_BYTES = 8 * 1024 * 1024
"""Some 300,000 requests; with the list before, a year of a busy house."""
MOST_WAITING = 100_000
TAIL_BYTES = 65_536


class DemandKeeper:
    """The hub's forecast, for as long as it is `run`."""

    def __init__(self, folder: Path, zone: tzinfo, wall: Callable[[], float] = time.time) -> None:
        """Take the folder and the house's time zone, and read what is there."""
        self._wall = wall
        self._state = folder / "demand.json"
        self._list = folder / "requests.csv"
        self.demand = _read(self._state, zone)
        self._new: list[str] = []
        self._saving = threading.Lock()

    def note(self, expert: str, now: float) -> None:
        """Note a request, for learning and in the list."""
        self.demand.note(expert, now)
        if len(self._new) < MOST_WAITING and not set(expert) & set(',"\r\n'):
            self._new.append(f"{now:.1f},{expert}\n")

    def wanted(self, now: float) -> Mapping[str, float]:
        """Return for each expert the chance that a request comes in the hour that holds a moment."""
        return self.demand.wanted(now)

    async def run(self) -> None:
        """Keep up with the time and save, until cancelled."""
        try:
            while True:
                self.demand.advance(self._wall())
                await asyncio.sleep(SAVE_SECONDS)
                state, lines = self._take()
                await asyncio.to_thread(self._save, state, lines)
        finally:
            self.save()

    def save(self) -> None:
        """Save now."""
        self._save(*self._take())

    def _take(self) -> tuple[DemandState, Sequence[str]]:
        lines, self._new = self._new, []
        return self.demand.state(), lines

    def _save(self, state: DemandState, lines: Sequence[str]) -> None:
        try:
            with self._saving:
                self._state.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                durable_files.write(self._state, state.model_dump_json().encode(), mode=0o600)
                if lines:
                    self._append("".join(lines).encode())
        except OSError as error:
            _log.warning("what is known of the demand can't be kept in %s: %s", self._state.parent, error)

    def _append(self, content: bytes) -> None:
        if self._list.exists() and self._list.stat().st_size + len(content) > MOST_LIST_BYTES:
            self._list.replace(self._list.with_name("requests.1.csv"))
        descriptor = os.open(self._list, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "r+b") as file:
            size = file.seek(0, os.SEEK_END)
            before = max(0, size - TAIL_BYTES)
            file.seek(before)
            end = before + _whole_lines(file.read())
            file.truncate(end)  # when the power went, the last line may have been cut, or become zeros
            file.seek(end)
            file.write(content if end else b"time,expert\n" + content)
            file.flush()
            os.fsync(descriptor)


def _whole_lines(content: bytes) -> int:
    return content.partition(b"\0")[0].rfind(b"\n") + 1


def _read(path: Path, zone: tzinfo) -> Demand:
    try:
        return Demand.restored(DemandState.model_validate_json(path.read_bytes()), zone)
    except FileNotFoundError:
        return Demand(zone)
    except OSError as error:
        _log.warning("%s can't be read (%s): the demand is learned anew", path, error.strerror)
        return Demand(zone)
    except (ValidationError, ValueError, OverflowError):
        broken = path.with_suffix(".broken")
        _log.warning("%s is damaged and now called %s: the demand is learned anew", path, broken.name)
        try:
            path.replace(broken)
        except OSError as error:
            _log.warning("%s can't be renamed: %s", path, error.strerror)
        return Demand(zone)
