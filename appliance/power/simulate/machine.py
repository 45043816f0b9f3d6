"""One machine through time, by the real policy: from one event to the next.

The policy is asked only when its answer can be another one: it says itself until when it stays with it, and it never
sleeps within its idle time. So a conversation costs one question, however many requests it has.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Literal

from appliance.power.policy import Policy, Verdict, Way

type Cause = Literal["request", "alarm", "forecast"]


@dataclass(slots=True)
class Seen:
    """What the policy is told; requests are always over when it is asked."""

    last_activity: float
    awake_since: float
    stay_awake_until: float | None = None
    active_requests: int = 0
    queued_jobs: int = 0
    sessions: tuple[str, ...] = ()
    update_running: bool = False
    inhibitors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Workload:
    """The requests of one machine, and conversations: stretches in which it is never idle for long enough to sleep.

    All are Unix times, in order; a conversation ends when its last answer would, had nobody waited.
    """

    times: Sequence[float]
    seconds: Sequence[float]
    begins: Sequence[float]
    ends: Sequence[float]
    wanted: Sequence[tuple[float, float]] = ()
    """When the forecast wants the machine awake."""
    wake_factors: Sequence[float] = (1.0,)
    """How much longer or shorter than usual each wake takes, used in turn."""


@dataclass(slots=True)
class Life:
    """What became of a machine, in seconds and numbers."""

    awake: float = 0.0
    asleep: float = 0.0
    off: float = 0.0
    moving: float = 0.0
    """On its way down or up."""
    wakes: dict[Cause, int] = field(default_factory=lambda: {"request": 0, "alarm": 0, "forecast": 0})
    hits: int = 0
    """Wakes by the forecast after which a request came before the machine slept again."""
    misses: int = 0
    """Those after which none came."""
    waits: list[tuple[int, int, float]] = field(default_factory=list)
    """Requests from one place in the workload to before another that waited, and until when."""
    decisions: int = 0
    """How often the policy was asked."""


class Machine:
    """A machine that is awake at `start`, and is followed until `end`."""

    def __init__(self, policy: Policy, work: Workload, *, start: float, end: float) -> None:
        """Take the policy, what comes, and the stretch of time."""
        self.life = Life()
        self._policy = policy
        self._ways: dict[str, Way] = {way.method: way for way in (policy.rules.suspend, policy.rules.poweroff)}
        self._work = work
        self._end = end
        self._seen = Seen(last_activity=start, awake_since=start)
        self._next = 0
        """The next conversation."""
        self._next_wanted = 0
        self._foreseen = False
        """Whether it was woken by the forecast, and nobody has come yet."""

    def run(self) -> Life:
        """Follow it to the end."""
        while (slept := self._stay_awake()) is not None:
            if not self._sleep(*slept):
                break
        return self.life

    def _stay_awake(self) -> tuple[Verdict, float] | None:
        """Go on until the policy says that it sleeps, or the end."""
        seen, begins, ends = self._seen, self._work.begins, self._work.ends
        least_idle, count = self._policy.least_idle, len(begins)
        now = seen.last_activity + least_idle
        while True:
            while self._next < count and begins[self._next] <= now:
                seen.last_activity = max(seen.last_activity, ends[self._next])
                now = max(now, seen.last_activity + least_idle)
                self._next += 1
                if self._foreseen:
                    self._foreseen = False
                    self.life.hits += 1
            if now >= self._end:
                self.life.awake += max(0.0, self._end - seen.awake_since)
                return None
            seen.stay_awake_until = self._wanted_until(now)
            verdict = self._policy(seen, now)
            self.life.decisions += 1
            if verdict.action != "stay":
                self.life.awake += now - seen.awake_since
                return verdict, now
            now = verdict.until

    def _sleep(self, verdict: Verdict, now: float) -> bool:
        """Sleep until something wakes it; whether that is before the end."""
        life, work, way = self.life, self._work, self._ways[verdict.action]
        if self._foreseen:
            self._foreseen = False
            life.misses += 1
        asleep = now + way.down_seconds
        asked = work.begins[self._next] if self._next < len(work.begins) else inf
        alarm = inf if verdict.wake_at is None else verdict.wake_at
        wanted = self._wanted_from(now)
        woken = min(asked, alarm, wanted)
        cause: Cause = "request" if woken == asked else "alarm" if woken == alarm else "forecast"
        leaves = max(woken, asleep)
        factors = work.wake_factors
        up = way.up_seconds * factors[sum(life.wakes.values()) % len(factors)]
        ready = leaves + up
        down = max(0.0, min(leaves, self._end) - asleep)
        if way.method == "suspend":
            life.asleep += down
        else:
            life.off += down
        life.moving += min(asleep, self._end) - now
        if leaves >= self._end:
            self._note_waits(ready)  # somebody may have asked while it went down
            return False
        life.moving += min(ready, self._end) - leaves
        life.wakes[cause] += 1
        self._foreseen = cause == "forecast"
        self._seen.last_activity = max(ready, self._note_waits(ready))
        self._seen.awake_since = ready
        return True

    def _note_waits(self, ready: float) -> float:
        """Note which requests wait until the machine is there, and return when the last of their answers ends."""
        work, last = self._work, ready
        if self._next == len(work.begins) or work.begins[self._next] >= min(ready, self._end):
            return last
        first = bisect_left(work.times, work.begins[self._next])
        behind = bisect_left(work.times, ready, first)
        self.life.waits.append((first, behind, ready))
        last = ready + max(work.seconds[first:behind])
        while self._next < len(work.begins) and work.begins[self._next] < ready:
            last = max(last, work.ends[self._next])
            self._next += 1
        if self._foreseen:
            self._foreseen = False
            self.life.hits += 1
        return last

    def _wanted_until(self, now: float) -> float | None:
        wanted = self._work.wanted
        while self._next_wanted < len(wanted) and wanted[self._next_wanted][1] <= now:
            self._next_wanted += 1
        if self._next_wanted < len(wanted) and wanted[self._next_wanted][0] <= now:
            return wanted[self._next_wanted][1]
        return None

    def _wanted_from(self, now: float) -> float:
        self._wanted_until(now)
        return self._work.wanted[self._next_wanted][0] if self._next_wanted < len(self._work.wanted) else inf
