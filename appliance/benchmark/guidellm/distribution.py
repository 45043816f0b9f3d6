"""GuideLLM's `DistributionSummary` of some values."""

import itertools
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from appliance.benchmark.summary import PERCENTILES

type Json = dict[str, Any]

ROUNDING = 1e-9
STATUSES = ("successful", "incomplete", "errored", "total")


def distribution(values: Sequence[float], weights: Sequence[float] | None = None) -> Json:
    """Return the summary of values, as GuideLLM makes it: percentiles are values that occur; 0 where there is none.

    Args:
        values: finite numbers.
        weights: how often each counts; none of them is negative.
    """
    weighted: defaultdict[float, float] = defaultdict(float)
    for value, weight in zip(values, weights or [1.0] * len(values), strict=True):
        if weight > 0:
            weighted[value] += weight
    if not weighted:
        return _summary(dict.fromkeys(PERCENTILES, 0.0), count=0, mean=0.0, mode=0.0, variance=0.0, low=0.0, high=0.0)
    ordered = sorted(weighted)
    sums = list(itertools.accumulate(weighted[value] for value in ordered))
    total = sums[-1]
    mean = sum(value * weight for value, weight in weighted.items()) / total
    return _summary(
        {name: ordered[_place(sums, percent)] for name, percent in PERCENTILES.items()},
        count=round(total),
        mean=mean,
        mode=max(ordered, key=weighted.__getitem__),
        variance=sum((value - mean) ** 2 * weight for value, weight in weighted.items()) / total,
        low=ordered[0],
        high=ordered[-1],
    )


def _place(sums: Sequence[float], percent: float) -> int:
    """Return the place of the first value that so many percent do not exceed."""
    return min(bisect_left(sums, sums[-1] * percent / 100 * (1 - ROUNDING)), len(sums) - 1)


def constant(value: float, count: int) -> Json:
    """Return the summary of a rate of which only the mean is known: all its percentiles are the mean."""
    points = dict.fromkeys(PERCENTILES, value)
    return _summary(points, count=count, mean=value, mode=value, variance=0.0, low=value, high=value)


def _summary(
    points: dict[str, float], *, count: int, mean: float, mode: float, variance: float, low: float, high: float
) -> Json:
    return {
        "mean": mean,
        "median": points["p50"],
        "mode": mode,
        "variance": variance,
        "std_dev": variance**0.5,
        "min": low,
        "max": high,
        "count": count,
        "total_sum": mean * count,
        "percentiles": points,
        "pdf": None,
    }
