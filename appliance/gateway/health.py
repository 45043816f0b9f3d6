"""Which endpoints can be trusted: a circuit breaker for each.

Closed, an endpoint is asked. A failure opens it for a time that doubles with each failure in a row: it is then
asked last. After that it is half-open: one request at a time tries it, and its outcome closes or opens it.
The pattern is Michael Nygard's (Release It!, "Circuit Breaker"). What the probes see is taken into account:
a probe that fails opens an endpoint and keeps it open, and one that succeeds after one that failed ends the
waiting, for then the endpoint was down and has come back.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

FIRST_COOL_DOWN_SECONDS = 5.0
"""How long an endpoint that failed is asked last. Its next status message ends it early."""
LAST_COOL_DOWN_SECONDS = 300.0
"""The time doubles with each failure in a row, up to this."""
BAD_ANSWERS_TO_OPEN = 3
"""Bad answers in a row that open the breaker: one may be the request's own fault. Silence opens it at once."""

type Key = tuple[str, str]
"""Node and expert."""
type State = Literal["closed", "half-open", "open"]
STATES: tuple[State, ...] = ("closed", "half-open", "open")


@dataclass(slots=True)
class _Breaker:
    """What is known of one endpoint."""

    bad_answers: int = 0
    """In a row, while the breaker is closed."""
    openings: int = 0
    """In a row; 0 means that the breaker is closed."""
    opened_at: float = 0.0
    until: float = 0.0
    down: bool = False
    """Whether the last probe failed."""
    trial: bool = False
    """Whether a request is trying the half-open endpoint."""
    answered_at: float = float("-inf")


class Health:
    """The breakers of all endpoints."""

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, opened: Callable[[Key], None] = lambda _: None
    ) -> None:
        """Take a clock, and what to tell when a breaker opens."""
        self._clock = clock
        self._opened = opened
        self._breakers: dict[Key, _Breaker] = {}

    def state(self, key: Key) -> State:
        """Return the breaker's state."""
        breaker = self._breakers.get(key)
        if breaker is None or not breaker.openings:
            return "closed"
        return "open" if breaker.down or breaker.until > self._clock() else "half-open"

    def is_asked_last(self, key: Key) -> bool:
        """Whether others come first: it is open, or half-open and already being tried."""
        state = self.state(key)
        return state == "open" or (state == "half-open" and self._breakers[key].trial)

    def answered_at(self, key: Key) -> float:
        """When the endpoint last showed that it answers; minus infinity if it never did."""
        breaker = self._breakers.get(key)
        return breaker.answered_at if breaker is not None else float("-inf")

    def begin(self, key: Key) -> float:
        """Note that a request is sent, and return the time for `failure`."""
        if self.state(key) == "half-open":
            self._breakers[key].trial = True
        return self._clock()

    def cancel(self, key: Key) -> None:
        """Note that a request ended without telling anything of its endpoint."""
        if key in self._breakers:
            self._breakers[key].trial = False

    def answer(self, key: Key) -> None:
        """Note that the endpoint answers."""
        self._breakers[key] = _Breaker(answered_at=self._clock())

    def failure(self, key: Key, begun: float, *, silent: bool) -> None:
        """Note that a request failed.

        Args:
            key: the endpoint.
            begun: what `begin` returned. Of many requests that fail together the first one counts.
            silent: whether there was no answer at all, rather than a bad one.
        """
        breaker = self._breakers.setdefault(key, _Breaker())
        breaker.trial = False
        if not breaker.openings:
            breaker.bad_answers += 1
            if silent or breaker.bad_answers >= BAD_ANSWERS_TO_OPEN:
                self._open(key, breaker)
        elif begun >= breaker.until:
            self._open(key, breaker)

    def probed(self, key: Key, *, alive: bool) -> None:
        """Note what a probe saw."""
        breaker = self._breakers.setdefault(key, _Breaker())
        if alive:
            if breaker.down:
                breaker.until = self._clock()
            breaker.down = False
            if not breaker.openings:
                breaker.answered_at = self._clock()
        else:
            breaker.down = True
            if not breaker.openings:
                self._open(key, breaker)

    def forget(self, key: Key) -> None:
        """Trust an endpoint anew, because its node says something new about it."""
        self._breakers.pop(key, None)

    def _open(self, key: Key, breaker: _Breaker) -> None:
        now = self._clock()
        breaker.openings += 1
        breaker.bad_answers = 0
        breaker.opened_at = now
        breaker.until = now + min(FIRST_COOL_DOWN_SECONDS * 2 ** min(breaker.openings - 1, 10), LAST_COOL_DOWN_SECONDS)
        self._opened(key)
