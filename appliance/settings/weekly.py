"""Hours that come again each week, as people write them: `weekdays 06:30-08:00`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_SHORT = {"daily": frozenset(range(7)), "weekdays": frozenset(range(5)), "weekends": frozenset((5, 6))}
_TIME = r"([01]\d|2[0-4]):([0-5]\d)"
_ENTRY = re.compile(rf"([a-z,-]+) {_TIME}(?:-{_TIME})?")
_FORM = (
    "expected days and hours such as 'weekdays 06:30-08:00', 'sat,sun 09:00-23:30', 'mon-thu 22:00-06:00', "
    "or one time such as 'daily 06:30'"
)
DAY_MINUTES = 24 * 60


@dataclass(frozen=True, slots=True)
class WeeklyHours:
    """Some hours on some days, by the house's clock."""

    days: frozenset[int]
    """Days on which they begin; Monday is 0."""
    start: int
    """Minutes after midnight."""
    end: int
    """Minutes after that midnight; more than 1440 where they last into the next day."""


def parse_hours(text: str) -> WeeklyHours:
    """Return what is meant by `weekdays 06:30-08:00`; a single time is the minute that begins then.

    Raises:
        ValueError: it is something else.
    """
    match = _ENTRY.fullmatch(" ".join(text.lower().split()))
    if match is None:
        raise ValueError(f"{text!r}: {_FORM}")
    named, *times = match.groups()
    start = int(times[0]) * 60 + int(times[1])
    end = start + 1 if times[2] is None else int(times[2]) * 60 + int(times[3])
    if start >= DAY_MINUTES or end > DAY_MINUTES:
        raise ValueError(f"{text!r}: a day ends at 24:00, and the next begins at 00:00")
    if end == start:
        raise ValueError(f"{text!r}: begins when it ends; a whole day is 00:00-24:00")
    return WeeklyHours(_days(named, text), start, end if end > start else end + DAY_MINUTES)


def _days(named: str, text: str) -> frozenset[int]:
    found: set[int] = set()
    for part in named.split(","):
        first, dash, last = part.partition("-")
        if part in _SHORT:
            found |= _SHORT[part]
        elif first in DAYS and (last in DAYS if dash else not last):
            begin, length = DAYS.index(first), (DAYS.index(last or first) - DAYS.index(first)) % 7
            found |= {(begin + day) % 7 for day in range(length + 1)}
        else:
            raise ValueError(f"{text!r}: {part!r} is no day; {_FORM}")
    return frozenset(found)


def parse_all(texts: Sequence[str]) -> tuple[WeeklyHours, ...]:
    """Return all of them. Raises ValueError."""
    return tuple(parse_hours(text) for text in texts)


def _checked(texts: tuple[str, ...]) -> tuple[str, ...]:
    parse_all(texts)
    return texts


Hours = Annotated[tuple[str, ...], AfterValidator(_checked)]
"""A setting that holds such hours."""
