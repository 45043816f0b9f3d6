"""Hours that come again each week, on the time line: when they begin and end as Unix times.

Daylight saving: what begins or ends in the hour that the clock skips does so an hour later; of an hour that comes
twice, hours begin in the first and end in the second.
"""

from bisect import bisect_right
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from math import inf

from appliance.settings.weekly import WeeklyHours

WEEK = 7 * 86_400.0
MOST_WEEKS = 128
"""Weeks that are kept ready at the same time."""


class WeeklySchedule:
    """Some weekly hours in one time zone; those that overlap or touch are one."""

    def __init__(self, hours: Sequence[WeeklyHours], zone: tzinfo = UTC) -> None:
        """Take the hours, which may be none, and the house's time zone."""
        self._hours = tuple(hours)
        self._zone = zone
        self._weeks: dict[int, tuple[list[float], list[float]]] = {}

    def __bool__(self) -> bool:
        """Whether there are any hours."""
        return bool(self._hours)

    def at(self, now: float) -> tuple[bool, float]:
        """Return whether they are on, and until when that stays so; `inf` where there are none.

        With hours that never end, it is a time at which to ask again.
        """
        if not self._hours:
            return False, inf
        starts, ends = self._around(now)
        place = bisect_right(starts, now)
        if place and now < ends[place - 1]:
            return True, ends[place - 1]
        return False, starts[place]

    def next_start(self, now: float) -> float | None:
        """Return when they begin next, after `now`; None if they never do, because there are none or no end."""
        if not self._hours:
            return None
        starts, _ = self._around(now)
        place = bisect_right(starts, now)
        return starts[place] if place < len(starts) else None

    def _around(self, now: float) -> tuple[list[float], list[float]]:
        week = int(now // WEEK)
        known = self._weeks.get(week)
        if known is None:
            if len(self._weeks) >= MOST_WEEKS:
                self._weeks.clear()
            known = self._weeks[week] = self._spans(week)
        return known

    def _spans(self, week: int) -> tuple[list[float], list[float]]:
        """Return the merged hours from before a week of the Unix era until at least a week after it."""
        first = datetime.fromtimestamp(week * WEEK, self._zone).replace(hour=0, minute=0, second=0, microsecond=0)
        found: list[tuple[float, float]] = []
        for number in range(-2, 17):
            day = first + timedelta(days=number)
            for hours in self._hours:
                if day.weekday() in hours.days:
                    start = (day + timedelta(minutes=hours.start)).replace(fold=0).timestamp()
                    last = day + timedelta(minutes=hours.end)
                    found.append((start, max(last.replace(fold=fold).timestamp() for fold in (0, 1))))
        starts: list[float] = []
        ends: list[float] = []
        for start, end in sorted(found):
            if ends and start <= ends[-1]:
                ends[-1] = max(ends[-1], end)
            else:
                starts.append(start)
                ends.append(end)
        return starts, ends
