"""What a power meter is, and what may be wrong with one.

MeterError
└── MeterUnavailableError   this machine has no such meter, or it may not be read: use another one
"""

from dataclasses import dataclass
from typing import Literal, Protocol

type Source = Literal["rapl", "ipmi", "plug", "estimate"]

MOST_WATTS = 20_000.0
"""A reading beyond that is a fault of the meter, not a machine."""


class MeterError(Exception):
    """Root of the package's errors: there is no reading this time."""


class MeterUnavailableError(MeterError):
    """There is no such meter here; the message says why."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The power that was drawn since the last reading."""

    source: Source
    watts: float


class Meter(Protocol):
    """Measures, or estimates."""

    @property
    def source(self) -> Source:
        """Where its readings come from."""

    async def read(self) -> Reading:
        """Measure.

        Raises:
            MeterUnavailableError: there is no such meter.
            MeterError: there is no reading this time, for example because it is the first.
        """

    def forget(self) -> None:
        """Begin anew after the machine slept: what was measured before does not go with what comes."""
