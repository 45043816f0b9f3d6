"""Pairing codes: eight digits, short-lived, and guessed a few times at most."""

import re
import secrets
import time
from collections.abc import Callable

DIGITS = 8
WRONG_CODES = 5
"""Wrong codes that lock the door, however slowly they come."""
FIRST_LOCK_SECONDS = 600.0
LONGEST_LOCK_SECONDS = 86_400.0
MEMORY_SECONDS = 172_800.0
"""How long wrong codes and locks are remembered."""

type Clock = Callable[[], float]


def new_code() -> str:
    """Return a random code."""
    return f"{secrets.randbelow(10**DIGITS):0{DIGITS}}"


def shown(code: str) -> str:
    """Return a code as it is shown: in two groups."""
    return f"{code[: DIGITS // 2]} {code[DIGITS // 2 :]}"


def typed(text: str) -> str | None:
    """Return the code that somebody typed, with spaces and dashes where they liked, or None if it is none."""
    code = re.sub(r"[\s\-\u2010-\u2015.]", "", text)
    return code if re.fullmatch(rf"[0-9]{{{DIGITS}}}", code) else None


class Code:
    """The code that counts at the moment."""

    def __init__(self, *, lifetime: float, clock: Clock = time.monotonic) -> None:
        """Take how long a code counts, in seconds."""
        self._lifetime = lifetime
        self._clock = clock
        self.renew()

    def renew(self) -> None:
        """Make a new one; the former counts no more."""
        self._value = new_code()
        self._made = self._clock()

    @property
    def value(self) -> str:
        """The code; a new one when the former's time is over."""
        if self._clock() - self._made >= self._lifetime:
            self.renew()
        return self._value

    @property
    def expires_in(self) -> float:
        """Seconds for which it counts."""
        return max(0.0, self._lifetime - (self._clock() - self._made))


class Attempts:
    """Counts wrong codes, from wherever they come, and locks the door: each time for twice as long."""

    def __init__(self, *, clock: Clock = time.monotonic) -> None:
        """Take the clock."""
        self._clock = clock
        self._wrong = 0
        self._locks = 0
        self._last_wrong = 0.0
        self._locked_until = 0.0

    @property
    def locked_for(self) -> float:
        """Seconds until codes are taken again; 0 when they are taken now."""
        return max(0.0, self._locked_until - self._clock())

    @property
    def left(self) -> int:
        """Wrong codes until the door is locked."""
        self._forget_old()
        return WRONG_CODES - self._wrong

    def wrong(self) -> None:
        """Count a wrong code."""
        self._forget_old()
        self._wrong += 1
        self._last_wrong = self._clock()
        if self._wrong >= WRONG_CODES:
            lock = min(FIRST_LOCK_SECONDS * 2**self._locks, LONGEST_LOCK_SECONDS)
            self._locked_until = self._clock() + lock
            self._locks = min(self._locks + 1, 32)
            self._wrong = 0

    def forgive(self) -> None:
        """Begin anew: somebody stands at the machine."""
        self._wrong = 0
        self._locks = 0
        self._locked_until = 0.0

    def _forget_old(self) -> None:
        if self._clock() - self._last_wrong > MEMORY_SECONDS:
            self._wrong = 0
            self._locks = 0
