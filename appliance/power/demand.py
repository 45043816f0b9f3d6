"""What hours of the week an expert is asked in: learned from requests, and slow to believe.

Each of the 168 hours of the week has a chance that at least one request comes in it. What counts is whether an hour had
a request, not how many: a conversation of ten is one reason to be awake. The estimate is Bayesian, by Beta priors
(Gelman et al., "Bayesian Data Analysis", third edition, chapters 2 and 5) in two levels:

    pooled(hour)   = (K * PRIOR + active in the same and, half as much, the hours beside it, on days like this)
                     / (K + all those hours that were seen)
    chance(day, h) = (K * pooled(h) + active(day, h)) / (K + seen(day, h))

Days like this are Monday to Friday, or Saturday and Sunday. A request or two wake nobody: the prior weighs as much as
three weeks. What was seen counts half after six further observations of that hour. An hour begins by the house's clock,
so a habit stays where it is when the clocks change; the hour that comes twice counts as two, the one that is skipped
not at all.

The functions take arrays of any shape whose last axis is the hour of the week: the hub has one row for each expert, the
simulator one for each of its nodes, and both use these. For the hub, `Demand` is a forecast:

    demand = Demand(ZoneInfo("Europe/Berlin"))
    demand.note("small", now)                   # at each request
    demand.advance(now)                         # every few minutes, so that it knows which hours passed
    demand.wanted(now + AHEAD_SECONDS)          # {"small": 0.8, ...}, for the hour that holds that moment

An expert is wanted while its chance is at least THRESHOLD: its node is woken, and stays awake meanwhile. What has
happened so far in the hour makes no difference; that was tried, and is worse (docs/decisions/predictive-wake.md).
`appliance.power.demand_keeper` keeps a `Demand` on disk.
"""

from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

type Array = NDArray[np.float64]

HOURS = 168
PRIOR = 0.02
"""Chance of a request in an hour of which nothing is known: one in two days."""
PRIOR_WEIGHT = 3.0
"""Observations that a prior is worth."""
HALF_LIFE = 6.0
"""Observations of an hour of the week, that is weeks, after which one counts half."""
BESIDE = 0.5
"""How much the hours before and after an hour count in its pool."""
AHEAD_SECONDS = 300.0
"""How long before an hour that is likely to need it a machine is woken."""
THRESHOLD = 0.5
"""Chance from which waking pays; see docs/decisions/predictive-wake.md."""
MOST_EXPERTS = 1000
GAP_SECONDS = 900.0
"""A hub that did not look for longer was not there, and knows nothing of that time."""

_FORGET = 0.5 ** (1 / HALF_LIFE)


def empty(*shape: int) -> Array:
    """Return bins of which nothing is known."""
    return np.zeros((*shape, HOURS))


def learn(active: Array, seen: Array, hour: int, was_active: Array | float) -> None:
    """Take an hour that has passed into the bins, in place: 1 where a request came in it, 0 where none did."""
    active[..., hour] = active[..., hour] * _FORGET + was_active
    seen[..., hour] = seen[..., hour] * _FORGET + 1.0


def chance(active: Array, seen: Array, hour: int) -> Array:
    """Return the chance that a request comes in this hour of the week, for each row."""
    alike, weights = _POOLS[hour]
    pooled = (PRIOR_WEIGHT * PRIOR + active[..., alike] @ weights) / (PRIOR_WEIGHT + seen[..., alike] @ weights)
    found: Array = (PRIOR_WEIGHT * pooled + active[..., hour]) / (PRIOR_WEIGHT + seen[..., hour])
    return found


def _pool(hour: int) -> tuple[NDArray[np.intp], Array]:
    day, of_day = divmod(hour, 24)
    days = range(5) if day < 5 else range(5, 7)
    places: dict[int, float] = {}
    for other in days:
        for shift, weight in ((0, 1.0), (-1, BESIDE), (1, BESIDE)):
            place = (other * 24 + of_day + shift) % HOURS
            places[place] = places.get(place, 0.0) + weight
    return np.array(list(places), dtype=np.intp), np.array(list(places.values()))


_POOLS = tuple(_pool(hour) for hour in range(HOURS))


@dataclass(frozen=True, slots=True)
class LocalHour:
    """An hour by the house's clock, as it really was."""

    start: float
    end: float
    of_week: int
    """From 0, Monday's first, to 167."""

    @classmethod
    def at(cls, now: float, zone: tzinfo) -> Self:
        """Return the hour that a moment is in."""
        local = datetime.fromtimestamp(now, zone)
        into = local.minute * 60 + local.second + local.microsecond / 1e6
        start = now - into
        before = datetime.fromtimestamp(start, zone)
        if before.hour != local.hour or before.utcoffset() != local.utcoffset():
            # The clock was changed within this hour, by half an hour, as on Lord Howe Island.
            start = _change(start, now, zone)
        return cls(start, now - into + 3600.0, local.weekday() * 24 + local.hour)


def _change(low: float, high: float, zone: tzinfo) -> float:
    """Return when the clock was changed between two moments, to the second."""
    wanted = datetime.fromtimestamp(high, zone).utcoffset()
    while high - low > 1.0:
        middle = (low + high) / 2
        if datetime.fromtimestamp(middle, zone).utcoffset() == wanted:
            high = middle
        else:
            low = middle
    return float(round(high))


Weight = Annotated[float, Field(ge=0, le=1e4, allow_inf_nan=False)]
Bins = Annotated[tuple[Weight, ...], Field(min_length=HOURS, max_length=HOURS)]


class ExpertState(BaseModel):
    """What is known of an expert, as it is kept on disk."""

    model_config = ConfigDict(extra="forbid")

    active: Bins
    seen: Bins

    @model_validator(mode="after")
    def _check(self) -> Self:
        if any(active > seen + 1e-3 for active, seen in zip(self.active, self.seen, strict=True)):
            raise ValueError("an hour was active more often than it was seen")
        return self


class DemandState(BaseModel):
    """What `Demand` knows, as it is kept on disk."""

    model_config = ConfigDict(extra="forbid")

    version: Literal[1] = 1
    last: Annotated[float, Field(ge=0, le=1e11, allow_inf_nan=False)]
    """When somebody last looked; Unix time."""
    there: Annotated[float, Field(ge=0, le=7200, allow_inf_nan=False)]
    """Seconds of the hour of `last` in which somebody looked."""
    asked: tuple[str, ...]
    """Experts that had a request in that hour."""
    experts: Annotated[dict[str, ExpertState], Field(max_length=MOST_EXPERTS)]


@dataclass(slots=True)
class _Expert:
    active: Array = field(default_factory=empty)
    seen: Array = field(default_factory=empty)


class Demand:
    """What is known of each expert; tell it the time now and then, so that it knows which hours passed."""

    def __init__(self, zone: tzinfo) -> None:
        """Take the house's time zone."""
        self._zone = zone
        self._experts: dict[str, _Expert] = {}
        self._asked: set[str] = set()
        """Experts that had a request in the present hour."""
        self._hour: LocalHour | None = None
        self._there = 0.0
        """Seconds of the present hour in which somebody looked."""
        self._last = 0.0

    def note(self, expert: str, now: float) -> None:
        """Note a request."""
        self.advance(now)
        if expert not in self._experts:
            if len(self._experts) >= MOST_EXPERTS:
                return
            self._experts[expert] = _Expert()
        self._asked.add(expert)

    def wanted(self, now: float) -> dict[str, float]:
        """Return for each expert the chance that a request comes in the hour that holds a moment, near or far."""
        hour = LocalHour.at(now, self._zone).of_week
        return {name: float(chance(expert.active, expert.seen, hour)) for name, expert in self._experts.items()}

    def advance(self, now: float) -> None:
        """Learn from the hours that have passed; those in which nobody looked teach nothing."""
        if self._hour is None or now < self._hour.start:  # the clock may have been set back
            self._asked.clear()
            self._begin(now)
        elif now - self._last > GAP_SECONDS:
            if now >= self._hour.end:
                self._finish(self._hour)
                self._begin(now)
            self._last = now
        else:
            self._pass_time(self._hour, now)

    def _pass_time(self, hour: LocalHour, now: float) -> None:
        while now >= hour.end:
            self._there += hour.end - self._last
            self._finish(hour)
            self._begin(hour.end)
            hour = LocalHour.at(hour.end, self._zone)
        self._there += max(0.0, now - self._last)
        self._last = max(self._last, now)

    def _begin(self, now: float) -> None:
        self._hour = LocalHour.at(now, self._zone)
        self._last = now
        self._there = 0.0

    def _finish(self, hour: LocalHour) -> None:
        """Take an hour that is over into the bins."""
        watched = self._there >= (hour.end - hour.start) / 2
        for name, expert in self._experts.items():
            if watched or name in self._asked:
                learn(expert.active, expert.seen, hour.of_week, float(name in self._asked))
        self._asked.clear()

    def chances(self, expert: str) -> Array:
        """Return the chance of each hour of the week, Monday's first hour first; for charts."""
        known = self._experts.get(expert) or _Expert()
        return np.array([chance(known.active, known.seen, hour) for hour in range(HOURS)])

    @property
    def experts(self) -> tuple[str, ...]:
        """Those that ever had a request."""
        return tuple(self._experts)

    def forget(self, expert: str) -> None:
        """Drop an expert that is gone for good."""
        self._experts.pop(expert, None)
        self._asked.discard(expert)

    def state(self) -> DemandState:
        """Return all of it, to be kept on disk."""
        return DemandState(
            there=round(self._there, 1),
            last=self._last,
            asked=tuple(sorted(self._asked)),
            experts={
                name: ExpertState(active=_rounded(expert.active), seen=_rounded(expert.seen))
                for name, expert in self._experts.items()
            },
        )

    @classmethod
    def restored(cls, state: DemandState, zone: tzinfo) -> Self:
        """Return what was kept."""
        demand = cls(zone)
        for name, kept in state.experts.items():
            demand._experts[name] = _Expert(np.array(kept.active), np.array(kept.seen))
        if state.last:
            demand._hour = LocalHour.at(state.last, zone)
            demand._last = state.last
            demand._there = state.there
            demand._asked = set(state.asked) & state.experts.keys()
        return demand


def _rounded(values: Array) -> tuple[float, ...]:
    return tuple(round(float(value), 4) for value in values)
