"""By which clock the house lives."""

from datetime import UTC, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

LOCAL_TIME = Path("/etc/localtime")


def house_zone(name: str | None, local_time: Path = LOCAL_TIME) -> tzinfo:
    """Return the time zone of the settings (`system.time_zone`), or else the machine's own, or UTC."""
    try:
        if name is not None:
            return ZoneInfo(name)
        with local_time.open("rb") as file:
            return ZoneInfo.from_file(file, key="local")
    except (OSError, ValueError, ZoneInfoNotFoundError):
        return UTC
