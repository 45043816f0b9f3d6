"""Invented demand: who is at home when, and talks to the house.

A household has a rate of conversations for each hour of the week, a liveliness of its own (gamma distributed, mean 1),
some habits at the same time each day, and days on which nobody is there. A conversation is a few requests some seconds
apart. The numbers are guesses: they are for comparing policies, not for saying what your house needs; a recording does
that.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from appliance.power.demand import LocalHour

type Array = NDArray[np.float64]

LIVELINESS = 4.0
"""Shape of its gamma distribution: two in three households are within half of the mean."""
REQUESTS = 3.0
"""Mean number of requests in a conversation (geometric)."""
PAUSE_SECONDS = 45.0
"""Mean pause between two of them (exponential)."""
ANSWER_SECONDS = 8.0
"""Mean time that an answer takes (exponential)."""
HABIT_MINUTES = 8.0
"""Standard deviation of when a habit comes."""
HABIT_CHANCE = 0.85
"""Chance that it comes on a day on which somebody is there."""


@dataclass(frozen=True, slots=True)
class Profile:
    """One kind of household: spans of the day with conversations per hour, and what else there is."""

    weekday: tuple[tuple[int, int, float], ...]
    weekend: tuple[tuple[int, int, float], ...]
    habits: tuple[tuple[float, bool], ...] = ()
    """Hour of the day at which something is asked nearly every day, and whether at weekends too."""
    away: float = 0.05
    """Share of days on which nobody is there."""
    shift: int = 0
    """Hours by which the day moves on with each week, as for people who work in shifts."""

    def rates(self) -> Array:
        """Return conversations per hour for each hour of the week."""
        rates = np.zeros((7, 24))
        for day in range(7):
            for begin, end, rate in self.weekday if day < 5 else self.weekend:
                rates[day, begin:end] = rate
        return rates.reshape(-1)


PROFILES: dict[str, Profile] = {
    "family": Profile(
        weekday=((6, 8, 1.2), (8, 13, 0.1), (13, 16, 0.5), (16, 21, 1.1), (21, 23, 0.6)),
        weekend=((7, 9, 0.5), (9, 13, 0.9), (13, 17, 0.6), (17, 21, 1.0), (21, 24, 0.5)),
        habits=((6.75, False), (19.5, True)),
    ),
    "couple": Profile(
        weekday=((6, 8, 0.7), (17, 20, 0.6), (20, 23, 0.5)),
        weekend=((9, 12, 0.5), (12, 18, 0.3), (18, 23, 0.6)),
        habits=((7.0, False),),
        away=0.1,
    ),
    "at-home": Profile(
        weekday=((7, 9, 0.9), (9, 18, 0.5), (18, 22, 0.7)),
        weekend=((8, 10, 0.7), (10, 18, 0.5), (18, 22, 0.7)),
        habits=((7.5, True), (12.0, True)),
        away=0.04,
    ),
    "night-owl": Profile(
        weekday=((0, 2, 0.4), (10, 12, 0.3), (18, 24, 0.5)),
        weekend=((0, 3, 0.6), (11, 14, 0.3), (17, 24, 0.5)),
        away=0.1,
    ),
    "shifts": Profile(
        weekday=((5, 7, 0.8), (15, 18, 0.6), (18, 21, 0.4)),
        weekend=((9, 13, 0.4), (17, 21, 0.5)),
        away=0.08,
        shift=8,
    ),
}
MIX = {"family": 0.3, "couple": 0.25, "at-home": 0.25, "night-owl": 0.1, "shifts": 0.1}
"""Shares of a mixed fleet."""


@dataclass(frozen=True, slots=True)
class Requests:
    """The requests of some nodes, in the order of nodes and then of time."""

    times: Array
    """Unix times."""
    seconds: Array
    """How long each is answered."""
    node: NDArray[np.intp]
    nodes: int


def invent(rng: np.random.Generator, *, nodes: int, profile: str, hours: tuple[LocalHour, ...]) -> Requests:
    """Return the requests of some households in the given hours."""
    names = list(MIX) if profile == "mixed" else [profile]
    shares = [MIX[name] for name in names] if profile == "mixed" else [1.0]
    kinds = rng.choice(len(names), size=nodes, p=shares)
    starts = np.array([hour.start for hour in hours])
    lengths = np.array([hour.end - hour.start for hour in hours])
    of_week = np.array([hour.of_week for hour in hours])
    day = np.cumsum(np.concatenate(([0], (of_week[1:] // 24 != of_week[:-1] // 24).astype(int))))
    liveliness = rng.gamma(LIVELINESS, 1 / LIVELINESS, size=nodes)
    away = np.array([PROFILES[name].away for name in names])[kinds]
    there = rng.random((nodes, day[-1] + 1)) >= away[:, None]
    moved = np.stack([_moved(PROFILES[name], of_week, day) for name in names])
    rate = moved[kinds] * liveliness[:, None] * there[:, day] * (lengths / 3600.0)
    count = rng.poisson(rate)
    node, hour = np.nonzero(count)
    often = count[node, hour]
    node, hour = np.repeat(node, often), np.repeat(hour, often)
    begin = starts[hour] + rng.random(len(hour)) * lengths[hour]
    habit_node, habit_begin = _habits(
        rng, profiles=[PROFILES[name] for name in names], kinds=kinds, there=there, hours=hours, day=day
    )
    return _conversations(
        rng,
        np.concatenate((node, habit_node)),
        np.concatenate((begin, habit_begin)),
        nodes=nodes,
        span=(hours[0].start, hours[-1].end),
    )


def _moved(profile: Profile, of_week: NDArray[np.intp], day: NDArray[np.intp]) -> Array:
    """Return the rate in each hour, the day moved on week by week."""
    of_day = (of_week % 24 - profile.shift * (day // 7)) % 24
    moved: Array = profile.rates()[of_week // 24 * 24 + of_day]
    return moved


def _habits(
    rng: np.random.Generator,
    *,
    profiles: list[Profile],
    kinds: NDArray[np.intp],
    there: NDArray[np.bool_],
    hours: tuple[LocalHour, ...],
    day: NDArray[np.intp],
) -> tuple[NDArray[np.intp], Array]:
    """Return who has a habit when; each household has its own time, about that of its kind."""
    first_hour = np.searchsorted(day, np.arange(day[-1] + 1))
    midnight = np.array([hours[at].start for at in first_hour])
    weekend = np.array([hours[at].of_week >= 120 for at in first_hour])
    nodes: list[NDArray[np.intp]] = []
    begins: list[Array] = []
    for kind, profile in enumerate(profiles):
        members = np.nonzero(kinds == kind)[0]
        for at, at_weekends in profile.habits:
            own = at + rng.normal(0, 0.75, size=len(members))
            comes = there[members] & (rng.random((len(members), len(midnight))) < HABIT_CHANCE)
            comes &= at_weekends | ~weekend
            jitter = rng.normal(0, HABIT_MINUTES * 60, size=comes.shape)
            row, column = np.nonzero(comes)
            nodes.append(members[row])
            begins.append(midnight[column] + own[row] * 3600.0 + jitter[row, column])
    if not nodes:
        return np.zeros(0, dtype=np.intp), np.zeros(0)
    return np.concatenate(nodes), np.concatenate(begins)


def _conversations(
    rng: np.random.Generator, node: NDArray[np.intp], begin: Array, *, nodes: int, span: tuple[float, float]
) -> Requests:
    often = rng.geometric(1 / REQUESTS, size=len(begin))
    first = np.cumsum(often) - often
    pauses = rng.exponential(PAUSE_SECONDS, size=int(often.sum()))
    pauses[first] = 0.0
    total = np.cumsum(pauses)
    times = np.repeat(begin - total[first], often) + total
    node = np.repeat(node, often)
    kept = (times >= span[0]) & (times < span[1])
    return in_order(node[kept], times[kept], rng.exponential(ANSWER_SECONDS, size=len(times))[kept], nodes)


def in_order(node: NDArray[np.intp], times: Array, seconds: Array, nodes: int) -> Requests:
    """Return requests in the order of nodes and time."""
    order = np.lexsort((times, node))
    return Requests(times[order], seconds[order], node[order], nodes)
