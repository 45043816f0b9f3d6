"""When the hub's forecast wants machines awake: the functions of `appliance.power.demand`, on many nodes at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from appliance.power.demand import AHEAD_SECONDS, LocalHour, chance, empty, learn
from appliance.power.simulate.households import Requests

type Array = NDArray[np.float64]

LINGER_SECONDS = 450.0
"""How much longer, on average, a machine stays awake after the last likely hour: the hub asks it for ten minutes, and
again when half of them are over."""


@dataclass(frozen=True, slots=True)
class Foreseen:
    """The chance of a request in each hour, as it is known when the hour begins."""

    chances: Array
    """Of each node and counted hour."""
    hours: Sequence[LocalHour]
    """The counted hours."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The stretches of time in which a machine is wanted awake, in the order of nodes and time."""

    begin: Array
    end: Array
    node: NDArray[np.intp]


def foresee(requests: Requests, hours: Sequence[LocalHour], *, start: float) -> Foreseen:
    """Let the forecast learn from all hours, and return what it says of those from `start` on."""
    starts = np.array([hour.start for hour in hours])
    counted = int(np.searchsorted(starts, start))
    place = np.searchsorted(starts, requests.times, side="right") - 1
    asked = np.zeros((requests.nodes, len(hours)))
    asked[requests.node, place] = 1.0
    active, seen = empty(requests.nodes), empty(requests.nodes)
    chances = np.zeros((requests.nodes, len(hours) - counted))
    for number, hour in enumerate(hours):
        if number >= counted:
            chances[:, number - counted] = chance(active, seen, hour.of_week)
        learn(active, seen, hour.of_week, asked[:, number])
    return Foreseen(chances, hours[counted:])


def wanted(foreseen: Foreseen, threshold: float, *, ahead: float = AHEAD_SECONDS) -> Wanted:
    """Return when the chance is at least `threshold`: hours that follow one another make one stretch."""
    starts = np.array([hour.start for hour in foreseen.hours]) - ahead
    ends = np.array([hour.end for hour in foreseen.hours]) + LINGER_SECONDS
    likely = np.pad((foreseen.chances >= threshold).astype(np.int8), ((0, 0), (1, 1)))
    change = np.diff(likely, axis=1)
    node, first = np.nonzero(change == 1)
    _, behind = np.nonzero(change == -1)
    return Wanted(starts[first], ends[behind - 1], node)
