"""GuideLLM's `DistributionSummary` of some values."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from appliance.benchmark.summary import PERCENTILES

type Json = dict[str, Any]

STATUSES = ("successful", "incomplete", "errored", "total")


def distribution(values: Sequence[float], weights: Sequence[float] | None = None) -> Json:
    """Return the summary of values, as GuideLLM makes it: percentiles are values that occur; 0 where there is none.

    Args:
        values: finite numbers.
        weights: how often each counts; none of them is negative.
    """
    counted = [
        (value, weight) for value, weight in zip(values, weights or [1.0] * len(values), strict=True) if weight > 0
    ]
    if not counted:
        return _summary(dict.fromkeys(PERCENTILES, 0.0), count=0, mean=0.0, mode=0.0, variance=0.0, low=0.0, high=0.0)
    array, weight = np.asarray(counted, dtype=float).T
    points = np.percentile(array, list(PERCENTILES.values()), weights=weight, method="inverted_cdf")
    unique, places = np.unique(array, return_inverse=True)
    mean = float(np.average(array, weights=weight))
    return _summary(
        dict(zip(PERCENTILES, map(float, points), strict=True)),
        count=round(float(weight.sum())),
        mean=mean,
        mode=float(unique[np.bincount(places, weights=weight).argmax()]),
        variance=float(np.average((array - mean) ** 2, weights=weight)),
        low=float(array.min()),
        high=float(array.max()),
    )


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
