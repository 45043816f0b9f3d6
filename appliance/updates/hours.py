"""When an automatic update may begin."""

from datetime import datetime, time


def within(hours: str, now: datetime) -> bool:
    """Whether a local time is within hours such as `22:30-05:00`; the same time twice is the whole day."""
    begin, end = (time.fromisoformat(part) for part in hours.split("-"))
    current = now.time().replace(second=0, microsecond=0)
    if begin == end:
        return True
    if begin < end:
        return begin <= current < end
    return current >= begin or current < end
