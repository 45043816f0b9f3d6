"""What a scenario is given, and what it says."""

import statistics
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from appliance.charts import Chart

type Bound = Literal["at least", "more than", "at most", "less than"]

HOLDS: dict[Bound, Callable[[float, float], bool]] = {
    "at least": lambda value, limit: value >= limit,
    "more than": lambda value, limit: value > limit,
    "at most": lambda value, limit: value <= limit,
    "less than": lambda value, limit: value < limit,
}


@dataclass(frozen=True, slots=True)
class Setting:
    """What every scenario of a run shares."""

    model: Path
    folder: Path
    """For what a scenario leaves behind: logs, prefixes."""
    say: Callable[[str], None]
    """Tells what is going on."""
    threads: int = 2
    rounds: int = 5


@dataclass(frozen=True, slots=True)
class Row:
    """One measured number, and what it must be."""

    what: str
    value: float | None
    """None: it could not be measured; `note` says why."""
    unit: str = "x"
    must: tuple[Bound, float] | None = None
    """None: for information."""
    note: str = ""
    broken: bool = False
    """Whether it is a fault that there is no value."""

    @property
    def verdict(self) -> Literal["PASS", "FAIL", "not measured", ""]:
        """Whether it is what it must be."""
        if self.broken:
            return "FAIL"
        if self.value is None:
            return "not measured"
        if self.must is None:
            return ""
        bound, limit = self.must
        return "PASS" if HOLDS[bound](self.value, limit) else "FAIL"

    def as_json(self) -> dict[str, Any]:
        """Return it for a script."""
        return {**asdict(self), "verdict": self.verdict}


@dataclass(frozen=True, slots=True)
class Result:
    """What a scenario found."""

    rows: Sequence[Row]
    charts: Sequence[Chart] = ()
    notes: Sequence[str] = ()
    data: dict[str, Any] = field(default_factory=dict)
    """The single measurements, as JSON."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One part of `make bench`."""

    name: str
    title: str
    run: Callable[[Setting], Awaitable[Result]]


def median_ratio(over: Sequence[float], under: Sequence[float]) -> float:
    """Return the median of the ratios of measurements that were made one after the other."""
    return statistics.median(one / other for one, other in zip(over, under, strict=True))
