"""The energy account of a node: what it has used, and what it would have used beyond that if it never slept.

Used is power times time, as the node's meters tell it. Saved is counted while the machine sleeps or is off: the watts
that it draws awake and idle, less those that it draws asleep. The watts awake and idle are measured where a meter sees
the whole machine (a smart plug, IPMI; RAPL sees the processor alone), as a mean over the last day of idle time; until
then they are those of the settings. Watts asleep are always those of the settings, since nobody is there to measure.

The account is kept in a file, written whole at most once a minute: that much is lost when the power goes. Time comes
from clocks that nobody sets; the wall clock only says to which day it belongs, so that a jump costs no energy. What
was drawn while the machine was off is filled in at the next start.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, tzinfo
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from appliance import durable_files
from appliance.security.layout import node_folder

_log = logging.getLogger(__name__)

type EnergyState = Literal["busy", "idle", "asleep"]

SAVE_SECONDS = 60.0
MOST_DAYS = 400
"""Of the history: a year can be compared with the one before."""
MOST_SECONDS = 10 * 366 * 86_400.0
"""Longer times are no readings."""
MOST_WATTS = 20_000.0
MOST_OFF_SECONDS = 7 * 86_400.0
"""A machine that was off for longer was put away; that is no saving."""
MEAN_SECONDS = 86_400.0
"""Idle time that the mean of the idle watts looks back on."""
JOULES_PER_KWH = 3.6e6
CLOCK_IS_SET = 1_700_000_000.0
"""A wall clock that shows an earlier time has not been set since the machine started."""

Joules = Annotated[float, Field(ge=0, le=1e15, allow_inf_nan=False)]
Time = Annotated[float, Field(ge=0, le=1e11, allow_inf_nan=False)]
DayName = Annotated[str, AfterValidator(lambda name: date.fromisoformat(name).isoformat())]


class Day(BaseModel):
    """What happened on one day."""

    model_config = ConfigDict(extra="forbid")

    used: Joules = 0.0
    """In joules."""
    measured: Joules = 0.0
    """The part of `used` that was measured on the whole machine."""
    saved: Joules = 0.0
    """Against a machine that is always on; in joules."""
    busy: Time = 0.0
    """Seconds in which experts were used."""
    idle: Time = 0.0
    """Seconds awake without that."""
    asleep: Time = 0.0
    """Seconds asleep or off."""


class AccountState(BaseModel):
    """The account, as it is kept on disk."""

    model_config = ConfigDict(extra="forbid")

    version: Literal[1] = 1
    since: Time
    used: Joules = 0.0
    saved: Joules = 0.0
    measured: Joules = 0.0
    idle_watts: Annotated[float, Field(ge=0, le=MOST_WATTS, allow_inf_nan=False)] | None = None
    """The measured mean of the whole machine, awake and idle."""
    idle_seconds: Time = 0.0
    """How much idle time it is the mean of, at most MEAN_SECONDS."""
    last: Time = 0.0
    """When this was written; Unix time."""
    boot: str = ""
    """The kernel's name for the start of the machine in which it was written."""
    days: Annotated[dict[DayName, Day], Field(max_length=MOST_DAYS + 1)] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Watts:
    """What the settings say of a machine's power."""

    idle: float
    off: float


@dataclass(frozen=True, slots=True)
class Uptime:
    """Which start of the machine this is, and how long ago it was."""

    boot: str
    seconds: float

    @classmethod
    def read(cls) -> "Uptime":
        """Ask the kernel."""
        try:
            boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            boot = ""
        return cls(boot, time.clock_gettime(time.CLOCK_BOOTTIME))


class Account:
    """Adds up; what is wrong with a reading is left out."""

    def __init__(
        self,
        *,
        watts: Watts,
        zone: tzinfo,
        uptime: Uptime,
        wall: Callable[[], float] = time.time,
        state: AccountState | None = None,
    ) -> None:
        """Take the settings' watts, the house's time zone, and what was kept, if anything was."""
        self._watts = watts
        self._zone = zone
        self._wall = wall
        self._boot = uptime.boot
        self._state = state or AccountState(since=wall())
        self.changed = False
        """Whether there is something to write."""
        self._fill_in(uptime)

    def add(self, watts: float, seconds: float, state: EnergyState, *, whole: bool = False) -> None:
        """Add the power of some time that has just passed.

        Args:
            watts: what was drawn.
            seconds: for how long, by a clock that nobody sets.
            state: what the machine did.
            whole: whether the watts were measured, and on the whole machine.
        """
        if not (0 <= watts <= MOST_WATTS and 0 < seconds <= MOST_SECONDS):
            return
        self._add(watts, seconds, state, whole=whole, end=self._wall())

    def _add(self, watts: float, seconds: float, state: EnergyState, *, whole: bool, end: float) -> None:
        saved = max(0.0, self.idle_watts - watts) if state == "asleep" else 0.0
        if whole and state == "idle":
            self._learn(watts, seconds)
        account = self._state
        account.used += watts * seconds
        account.saved += saved * seconds
        account.measured += watts * seconds * whole
        for name, part in _by_day(end, seconds, self._zone):
            day = account.days.setdefault(name, Day())
            day.used += watts * part
            day.measured += watts * part * whole
            day.saved += saved * part
            setattr(day, state, getattr(day, state) + part)
        for name in sorted(account.days)[:-MOST_DAYS]:
            del account.days[name]
        if account.since < CLOCK_IS_SET < end:
            account.since = end - seconds
        self.changed = True

    def _learn(self, watts: float, seconds: float) -> None:
        account = self._state
        known = account.idle_seconds
        mean = account.idle_watts if account.idle_watts is not None else watts
        account.idle_seconds = min(MEAN_SECONDS, known + seconds)
        account.idle_watts = mean + (watts - mean) * min(1.0, seconds / account.idle_seconds)

    def _fill_in(self, uptime: Uptime) -> None:
        """Count the time in which the machine was off, from the last word of its last start."""
        last, boot = self._state.last, self._state.boot
        if not last or not boot or not uptime.boot or boot == uptime.boot:
            return
        started = self._wall() - uptime.seconds
        off = min(started - last, MOST_OFF_SECONDS)
        if off > 0:
            self._add(self._watts.off, off, "asleep", whole=False, end=last + off)

    @property
    def idle_watts(self) -> float:
        """What the machine draws awake and idle: measured, or else as the settings say."""
        return self._watts.idle if self._state.idle_watts is None else self._state.idle_watts

    @property
    def baseline(self) -> Literal["measured", "settings"]:
        """Where `idle_watts` comes from, and with it what was saved."""
        return "settings" if self._state.idle_watts is None else "measured"

    @property
    def used_kwh(self) -> float:
        """What the node has used."""
        return self._state.used / JOULES_PER_KWH

    @property
    def measured_kwh(self) -> float:
        """The part of that which was measured on the whole machine."""
        return self._state.measured / JOULES_PER_KWH

    @property
    def saved_kwh(self) -> float:
        """What it would have used beyond that if it never slept."""
        return self._state.saved / JOULES_PER_KWH

    @property
    def since(self) -> float:
        """When counting began; Unix time."""
        return self._state.since

    @property
    def days(self) -> Mapping[str, Day]:
        """The history by local date, `2026-11-28`; at most MOST_DAYS days."""
        return dict(sorted(self._state.days.items()))

    def state(self) -> AccountState:
        """Return all of it, to be kept on disk."""
        return self._state.model_copy(update={"last": max(0.0, self._wall()), "boot": self._boot}, deep=True)


def _by_day(end: float, seconds: float, zone: tzinfo) -> Iterator[tuple[str, float]]:
    """Split the time that has just passed by the days that it was on; what is too long ago counts for the first."""
    for _ in range(MOST_DAYS):
        midnight = datetime.fromtimestamp(end - 1e-6, zone).replace(hour=0, minute=0, second=0, microsecond=0)
        part = min(seconds, end - midnight.timestamp())
        yield midnight.date().isoformat(), part
        seconds -= part
        if seconds <= 0:
            return
        end -= part
    yield midnight.date().isoformat(), seconds


class AccountKeeper:
    """An account and its file; `run` it beside."""

    def __init__(
        self,
        path: Path,
        *,
        watts: Watts,
        zone: tzinfo,
        uptime: Uptime | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Take the file, which is read, and what an account needs."""
        self._path = path
        self._saving = threading.Lock()
        self.account = Account(
            watts=watts, zone=zone, uptime=uptime or Uptime.read(), wall=wall, state=read_account(path)
        )

    async def run(self) -> None:
        """Write the account now and then, until cancelled, and then once more."""
        try:
            while True:
                await asyncio.sleep(SAVE_SECONDS)
                if self.account.changed:
                    self.account.changed = False
                    await asyncio.to_thread(self._save, self.account.state())
        finally:
            self.save()

    def save(self) -> None:
        """Write it now."""
        self._save(self.account.state())

    def _save(self, state: AccountState) -> None:
        try:
            with self._saving:
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                durable_files.write(self._path, state.model_dump_json().encode(), mode=0o600)
        except OSError as error:
            _log.warning("the energy account can't be written to %s: %s", self._path, error)


def account_file(state_folder: Path) -> Path:
    """Return where a node keeps its account, in a state folder."""
    return node_folder(state_folder) / "power" / "energy.json"


def read_account(path: Path) -> AccountState | None:
    """Return the account in a file; None if there is none, or if it is damaged, which is said and put aside."""
    try:
        return AccountState.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        _log.warning("%s can't be read (%s): the energy account begins anew", path, error.strerror)
        return None
    except ValidationError:
        broken = path.with_suffix(".broken")
        _log.warning("%s is damaged and now called %s: the energy account begins anew", path, broken.name)
        try:
            path.replace(broken)
        except OSError as error:
            _log.warning("%s can't be renamed: %s", path, error.strerror)
        return None
