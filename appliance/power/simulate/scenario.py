"""What is simulated: which machines, when, by which policies."""

from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo

from appliance.power.demand import AHEAD_SECONDS, LocalHour
from appliance.power.simulate.recording import Recording
from appliance.power.zone import house_zone
from appliance.settings.power import PowerSettings

MOST_NODES = 1_000_000
MOST_DAYS = 3660


@dataclass(frozen=True, slots=True)
class Contender:
    """A policy among others."""

    name: str
    settings: PowerSettings
    threshold: float | None = None
    """Chance from which the hub wakes the machine before it is asked, and keeps it awake; None is never."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """Everything that a simulation depends on; the same scenario always gives the same numbers."""

    nodes: int
    first: float
    """When learning begins; Unix time, a midnight."""
    start: float
    """When counting begins."""
    end: float
    zone: str | None
    """Name of the house's time zone; None is this machine's own."""
    seed: int
    contenders: tuple[Contender, ...]
    profile: str = "mixed"
    """Of the households, when nothing is recorded."""
    recording: Recording | None = None
    ahead: float = AHEAD_SECONDS
    """Seconds before a likely hour at which the hub wakes a machine."""
    spread: float = 0.35
    """Of the time that a machine takes to wake, as the standard deviation of its logarithm (base e)."""

    @property
    def house_zone(self) -> tzinfo:
        """The time zone."""
        return house_zone(self.zone)


def period(first_day: datetime, warm_up_days: int, days: int) -> tuple[float, float, float]:
    """Return when learning and counting begin, and the end; all are midnights by the house's clock."""
    midnight = first_day.replace(hour=0, minute=0, second=0, microsecond=0)
    start = midnight + timedelta(days=warm_up_days)
    return midnight.timestamp(), start.timestamp(), (start + timedelta(days=days)).timestamp()


def hours_between(start: float, end: float, zone: tzinfo) -> tuple[LocalHour, ...]:
    """Return the hours from one midnight to another."""
    found = []
    while start < end:
        found.append(LocalHour.at(start, zone))
        start = found[-1].end
    return tuple(found)
