"""How long requests waited: counted in classes, so that millions of them take no memory.

A class is half a percent wide, so percentiles are that exact; the mean and the longest are exact.
"""

from typing import Self

import numpy as np
from numpy.typing import NDArray

SHORTEST = 1e-3
"""Seconds; less is as good as nothing."""
WIDTH = 1.005
CLASSES = 3200
"""Up to two hours."""


class Waits:
    """A histogram of waiting times."""

    def __init__(self) -> None:
        """Begin with none."""
        self._classes = np.zeros(CLASSES, dtype=np.int64)
        self.requests = 0
        """All requests, those that did not wait included."""
        self.waited = 0
        self.total = 0.0
        """Seconds that all of them waited."""
        self.longest = 0.0

    def add(self, waits: NDArray[np.float64], *, requests: int) -> None:
        """Add the requests that waited, and how many there were in all."""
        self.requests += requests
        if len(waits):
            self.waited += len(waits)
            self.total += float(waits.sum())
            self.longest = max(self.longest, float(waits.max()))
            places = np.log(np.maximum(waits, SHORTEST) / SHORTEST) / np.log(WIDTH)
            self._classes += np.bincount(np.minimum(places.astype(int), CLASSES - 1), minlength=CLASSES)

    def merge(self, other: Self) -> None:
        """Add what another one counted."""
        self._classes += other._classes
        self.requests += other.requests
        self.waited += other.waited
        self.total += other.total
        self.longest = max(self.longest, other.longest)

    def percentile(self, share: float, *, of_waiting: bool = False) -> float:
        """Return the wait in seconds that `share` of all requests do not exceed, or of those that waited at all."""
        among = self.waited if of_waiting else self.requests
        rank = int(np.ceil(share * among)) - (0 if of_waiting else self.requests - self.waited)
        if rank <= 0 or not self.waited:
            return 0.0
        place = int(np.searchsorted(np.cumsum(self._classes), rank))
        return float(min(self.longest, SHORTEST * WIDTH ** (place + 1)))

    @property
    def mean(self) -> float:
        """Seconds that a request waited, on average over all."""
        return self.total / self.requests if self.requests else 0.0
