"""Where values lie on an axis, and which of them are labelled."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

STEPS = (1.0, 2.0, 5.0, 10.0)
MOST_TICKS = 6
MOST_DECADES = 30
SMALLEST, LARGEST = 1e-100, 1e100
"""What is beyond is not shown: its differences are no floating-point numbers."""


@dataclass(frozen=True, slots=True)
class Axis:
    """What an axis shows.

    `title` names the quantity and its unit, such as "first token (ms)". A logarithmic axis (`log`) shows positive
    values only. `ticks` are the labelled values; without them they are chosen.
    """

    title: str
    log: bool = False
    ticks: Sequence[float] = ()


class Scale:
    """Maps values to 0 … 1 along an axis."""

    def __init__(self, axis: Axis, values: Sequence[float]) -> None:
        self._log = axis.log
        shown = [value for value in (*values, *axis.ticks) if self.shows(value)]
        low, high = min(shown, default=1.0), max(shown, default=1.0)
        if axis.ticks:
            self.ticks = tuple(sorted(axis.ticks))
        else:
            self.ticks = _decades(low, high) if axis.log else _linear(min(low, 0.0), high)
        self._low = self._place(min(low, self.ticks[0]))
        self._high = self._place(max(high, self.ticks[-1]))

    def shows(self, value: float) -> bool:
        """Whether the value has a place on this axis."""
        return SMALLEST <= value <= LARGEST if self._log else -LARGEST <= value <= LARGEST

    def at(self, value: float) -> float:
        """Return the place of a value that is shown, from 0 to 1."""
        return (self._place(value) - self._low) / ((self._high - self._low) or 1.0)

    def _place(self, value: float) -> float:
        return math.log10(value) if self._log else value


def label(value: float) -> str:
    """Return a tick's text: 1500 is `1,500`, 0.05 is `0.05`."""
    if value and not 1e-4 <= abs(value) < 1e7:
        return f"{value:.0e}".replace("e+0", "e").replace("e-0", "e-")
    return f"{value:,.6f}".rstrip("0").rstrip(".")


def _linear(low: float, high: float) -> tuple[float, ...]:
    span = high - low if high - low >= SMALLEST else max(abs(high), 1.0)
    magnitude = 10.0 ** math.floor(math.log10(span / MOST_TICKS))
    step = next(factor * magnitude for factor in STEPS if span / (factor * magnitude) <= MOST_TICKS)
    first, last = math.floor(low / step), math.ceil(high / step)
    return tuple(number * step for number in range(first, max(last, first + 1) + 1))


def _decades(low: float, high: float) -> tuple[float, ...]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    last = max(last, first + 1)
    if last - first > 2:
        return tuple(10.0**power for power in range(first, last + 1, 1 + (last - first) // MOST_DECADES))
    fine = [factor * 10.0**power for power in range(first, last) for factor in STEPS[:3]] + [10.0**last]
    start = max((tick for tick in fine if tick <= low), default=fine[0])
    end = min((tick for tick in fine if tick >= high), default=fine[-1])
    kept = tuple(tick for tick in fine if start <= tick <= end)
    return kept if len(kept) > 1 else (kept[0], kept[0] * 10)
