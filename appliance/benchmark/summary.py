"""What is reported of many numbers."""

from collections.abc import Sequence
from typing import Self

import numpy as np
from pydantic import BaseModel, ConfigDict

PERCENTILES = {
    "p001": 0.1, "p01": 1, "p05": 5, "p10": 10, "p25": 25, "p50": 50,
    "p75": 75, "p90": 90, "p95": 95, "p99": 99, "p999": 99.9,
}  # fmt: skip
"""GuideLLM's names: p001 is the 0.1th, p999 the 99.9th."""


class Summary(BaseModel):
    """Distribution of some values; percentiles lie between values, linearly (numpy's default)."""

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
        array = np.asarray(values, dtype=float)
        points = np.percentile(array, list(PERCENTILES.values()))
        return cls(
            count=len(values),
            mean=float(array.mean()),
            deviation=float(array.std()),
            minimum=float(array.min()),
            maximum=float(array.max()),
            **dict(zip(PERCENTILES, map(float, points), strict=True)),
        )
