"""The machine's own alarm clock: the RTC wakes it from suspend, and on most boards from power-off too.

Written is `/sys/class/rtc/rtc0/wakealarm` (Linux, Documentation/ABI/testing/sysfs-class-rtc), not a timerfd with
CLOCK_BOOTTIME_ALARM or a systemd timer with WakeSystem=: those two know suspend only, and need CAP_WAKE_ALARM, which
ProtectClock= takes away. The times written are relative, so it does not matter whether the RTC counts UTC.
"""

import logging
import os
from pathlib import Path

_log = logging.getLogger(__name__)

ALARM = Path("/sys/class/rtc/rtc0/wakealarm")
LEAST_SECONDS = 30
"""An alarm that is nearer might ring before the machine sleeps, and then never."""


class AlarmClock:
    """The RTC's one alarm."""

    def __init__(self, path: Path = ALARM) -> None:
        """Take the kernel's file."""
        self._path = path
        self._set = False

    @property
    def usable(self) -> bool:
        """Whether there is one that this user may set."""
        return os.access(self._path, os.W_OK)

    def set(self, seconds: float) -> bool:
        """Have it ring in so many seconds; whether it will. An earlier alarm of somebody else's stays."""
        try:
            if not self._set and self._rings_before(seconds):
                return True
            self._write("0")  # the kernel refuses a second alarm
            self._write(f"+{max(LEAST_SECONDS, round(seconds))}")
        except OSError as error:
            _log.warning("the clock that wakes this machine can't be set (%s): %s", self._path, error.strerror)
            return False
        self._set = True
        return True

    def clear(self) -> None:
        """Take back what was set; an alarm of somebody else's stays."""
        if self._set:
            self._set = False
            try:
                self._write("0")
            except OSError as error:
                _log.warning("the clock that wakes this machine can't be cleared: %s", error.strerror)

    def _rings_before(self, seconds: float) -> bool:
        alarm = self._path.read_text(encoding="ascii").strip()
        now = (self._path.parent / "since_epoch").read_text(encoding="ascii").strip() if alarm else ""
        return alarm.isdigit() and now.isdigit() and 0 < int(alarm) - int(now) <= seconds

    def _write(self, text: str) -> None:
        with self._path.open("w", encoding="ascii") as file:
            file.write(text)
