"""Moments as people type them: `22:30`, `2h`, `2026-12-01 08:00`."""

import re
from datetime import datetime, timedelta, tzinfo

_SPAN = re.compile(r"(\d{1,5})\s*(s|m|min|h|d)")
_CLOCK = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")
_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}
FORM = "expected a time such as 22:30, a span such as 2h or 90m, or a date and time such as '2026-12-01 08:00'"


def moment(text: str, now: float, zone: tzinfo) -> float:
    """Return what a person means, as Unix time; a time of day is the next one.

    Raises:
        ValueError: it means nothing, or something in the past.
    """
    text = text.strip()
    if span := _SPAN.fullmatch(text):
        return now + int(span[1]) * _SECONDS[span[2]]
    today = datetime.fromtimestamp(now, zone)
    if clock := _CLOCK.fullmatch(text):
        meant = today.replace(hour=int(clock[1]), minute=int(clock[2]), second=0, microsecond=0)
        return (meant if meant.timestamp() > now else meant + timedelta(days=1)).timestamp()
    try:
        meant = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r}: {FORM}") from None
    found = (meant if meant.tzinfo is not None else meant.replace(tzinfo=zone)).timestamp()
    if found <= now:
        raise ValueError(f"{text!r}: is in the past")
    return found
