"""What is reported of many numbers."""

import math
import statistics
from collections.abc import Sequence
from typing import Self

from pydantic import BaseModel, ConfigDict

PERCENTILES = {
    "p001": 0.1, "p01": 1, "p05": 5, "p10": 10, "p25": 25, "p50": 50,
    "p75": 75, "p90": 90, "p95": 95, "p99": 99, "p999": 99.9,
}  # fmt: skip
"""GuideLLM's names: p001 is the 0.1th, p999 the 99.9th."""


class Summary(BaseModel):
    """Distribution of some values; see `percentile`."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    count: int
    mean: float
    deviation: float
    minimum: float
    maximum: float
    p001: float
    p01: float
    p05: float
    p10: float
    p25: float
    p50: float
    p75: float
    p90: float
    p95: float
    p99: float
    p999: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self | None:
        """Return the summary of values, of which there may be none."""
        if not values:
            return None
        ordered = sorted(values)
        return cls(
            count=len(values),
            mean=statistics.fmean(values),
            deviation=statistics.pstdev(values),
            minimum=ordered[0],
            maximum=ordered[-1],
            **{name: percentile(ordered, percent) for name, percent in PERCENTILES.items()},
        )


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return a percentile of sorted values, interpolated between two of them (type 7 of Hyndman and Fan, 1996)."""
    place = (len(ordered) - 1) * percent / 100
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)
