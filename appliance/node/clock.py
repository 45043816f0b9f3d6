"""What time it is, by the clocks of a machine that sleeps.

Durations are measured by CLOCK_MONOTONIC, which stands still while the machine sleeps: "idle for ten minutes" means
ten minutes in which someone could have used it. With CLOCK_BOOTTIME, a machine that was asleep all night would be
idle all night when it wakes, and sleep again before the request arrives that it was woken for. CLOCK_BOOTTIME goes on
during sleep, so that the difference of the two tells of a sleep that nobody announced. The wall clock may be set at any
time, so it is only used for what is meant by it: schedules, and times on the bus. clock_gettime(2).
"""

import time

LEAST_SLEEP_SECONDS = 0.5
"""The two clocks are not read at the same instant."""


class Clock:
    """The kernel's clocks; tests have others."""

    def monotonic(self) -> float:
        """Seconds, without the machine's sleep."""
        return time.monotonic()

    def boottime(self) -> float:
        """Seconds, with the machine's sleep."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def wall(self) -> float:
        """Unix time."""
        return time.time()


class SleepDetector:
    """Notices that the machine has slept."""

    def __init__(self, clock: Clock) -> None:
        """Take the clocks."""
        self._clock = clock
        self._offset = self._now()

    def slept(self) -> float:
        """Return for how many seconds the machine slept since the last question; 0 if it did not."""
        offset = self._now()
        slept, self._offset = offset - self._offset, offset
        return slept if slept >= LEAST_SLEEP_SECONDS else 0.0

    def _now(self) -> float:
        return self._clock.boottime() - self._clock.monotonic()
