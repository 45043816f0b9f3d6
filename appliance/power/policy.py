"""When a machine sleeps: decided from what is observed and the time alone, without I/O.

The node's daemon asks every few seconds; the simulator asks the same functions about weeks of a hundred thousand
machines. So that it need not ask about every second of them, each verdict says until when nothing but the observation
can change it (`Verdict.until`).

A sleep is worth while from the break-even time on, Benini, Bogliolo and De Micheli, "A survey of design techniques for
system-level dynamic power management", IEEE Transactions on VLSI Systems 8(3), 2000.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from math import inf
from typing import Literal, Protocol, Self

from appliance.power.schedule import WeeklySchedule
from appliance.settings.power import PowerSettings
from appliance.settings.weekly import parse_all

type Action = Literal["stay", "suspend", "poweroff"]
type Method = Literal["suspend", "poweroff"]

NEVER = "by its settings this machine never sleeps"
NEEDED_ROLES = frozenset({"hub", "voice", "vision"})
"""What somebody may use at any moment without asking an expert first."""
TOO_SHORT = "it must be awake again so soon that sleep would save nothing"
SAVES_NOTHING = "by its settings it draws no less asleep than awake"


class Observed(Protocol):
    """What a policy decides on; times are Unix times in seconds. The node's `Observation` is one."""

    @property
    def last_activity(self) -> float:
        """When an expert was last used, the daemon started or the machine woke, whichever was last."""

    @property
    def awake_since(self) -> float:
        """When the machine woke or the daemon started."""

    @property
    def active_requests(self) -> int:
        """Requests that are being answered."""

    @property
    def queued_jobs(self) -> int:
        """Requests that wait."""

    @property
    def sessions(self) -> tuple[str, ...]:
        """Who is logged in."""

    @property
    def update_running(self) -> bool:
        """Whether an update is being installed."""

    @property
    def inhibitors(self) -> tuple[str, ...]:
        """A sentence for each lock of another program that forbids sleep."""

    @property
    def stay_awake_until(self) -> float | None:
        """Until when somebody asked it to stay awake."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way to sleep, and what it costs."""

    method: Method
    down_seconds: float
    up_seconds: float
    watts: float
    """What the machine draws in this sleep."""

    def break_even(self, *, idle_watts: float, transition_watts: float) -> float:
        """Return how long the machine must be gone, ways down and up included, so that energy is saved."""
        transition = self.down_seconds + self.up_seconds
        if idle_watts <= self.watts:
            return inf
        return transition * (1 + max(0.0, transition_watts - idle_watts) / (idle_watts - self.watts))


@dataclass(frozen=True, slots=True)
class Rules:
    """What the owner of a machine wants."""

    mode: Literal["never", "suspend", "poweroff"]
    idle_after: float
    """Seconds without use before it sleeps."""
    idle_after_sooner: float
    """The same in the hours of `sooner`."""
    minimum_awake: float
    """Seconds that it stays awake after it woke."""
    awake: WeeklySchedule
    sooner: WeeklySchedule
    power_off: WeeklySchedule
    sleep_while_logged_in: bool
    suspend: Way
    poweroff: Way
    idle_watts: float
    transition_watts: float
    """What it draws while it goes down and comes up."""
    zone: tzinfo = UTC
    """For times in sentences."""
    never: str = NEVER
    """Why it never sleeps, where `mode` says so."""

    @classmethod
    def of(cls, settings: PowerSettings, zone: tzinfo, *, roles: Collection[str] = ()) -> Self:
        """Return the rules of the settings, in the house's time zone, for a machine with some roles."""
        needed = " and ".join(sorted(set(roles) & NEEDED_ROLES))
        return cls(
            mode="never" if needed else settings.mode,
            never=f"it serves as {needed}, which may be needed at any moment"
            if needed and settings.mode != "never"
            else NEVER,
            idle_after=settings.idle_after,
            idle_after_sooner=min(settings.idle_after, settings.idle_after_sooner),
            minimum_awake=settings.minimum_awake,
            awake=WeeklySchedule(parse_all(settings.awake), zone),
            sooner=WeeklySchedule(parse_all(settings.sleep_sooner), zone),
            power_off=WeeklySchedule(parse_all(settings.power_off), zone),
            sleep_while_logged_in=settings.sleep_while_logged_in,
            suspend=Way("suspend", settings.suspend_seconds, settings.resume_seconds, settings.asleep_watts),
            poweroff=Way("poweroff", settings.shutdown_seconds, settings.boot_seconds, settings.off_watts),
            idle_watts=settings.idle_watts,
            transition_watts=settings.busy_watts,
            zone=zone,
        )


class Verdict:
    """What a policy decided. The node's `Decision` is what it looks like from outside."""

    __slots__ = ("_moment", "_text", "_zone", "action", "blockers", "until", "wake_at")

    def __init__(
        self,
        action: Action,
        text: str,
        *,
        until: float,
        wake_at: float | None = None,
        blockers: tuple[str, ...] = (),
        moment: float | None = None,
        zone: tzinfo = UTC,
    ) -> None:
        """Take what to do and why; `{}` in the text is for a moment, which is only written out when it is read."""
        self.action = action
        """What to do now."""
        self.until = until
        """Before this time nothing else is decided, unless the observation changes; Unix time."""
        self.wake_at = wake_at
        """When the machine should be woken by its own clock, in the future; Unix time."""
        self.blockers = blockers
        """What keeps it awake, a sentence each."""
        self._text = text
        self._moment = moment
        self._zone = zone

    @property
    def reason(self) -> str:
        """Why, in one sentence."""
        return self._text if self._moment is None else self._text.format(clock_time(self._moment, self._zone))


class Policy:
    """Decides by rules; call it with what is observed and the time."""

    def __init__(self, rules: Rules) -> None:
        """Take the rules."""
        self.rules = rules
        self._ways = {way.method: way for way in (rules.suspend, rules.poweroff)}
        self._break_even = {
            way.method: way.break_even(idle_watts=rules.idle_watts, transition_watts=rules.transition_watts)
            for way in self._ways.values()
        }
        self._too_new = f"it has been awake for less than {duration(rules.minimum_awake)}"
        times = (rules.idle_after, rules.idle_after_sooner)
        self._too_busy = {time: f"it was used less than {duration(time)} ago" for time in times}
        self._unused = {time: f"nobody has used it for {duration(time)}" for time in times}

    @property
    def least_idle(self) -> float:
        """Seconds after a use before which it never sleeps, whatever the hour; `inf` if it never does."""
        if self.rules.mode == "never":
            return inf
        return min(self.rules.idle_after, self.rules.idle_after_sooner) if self.rules.sooner else self.rules.idle_after

    def __call__(self, seen: Observed, now: float) -> Verdict:
        """Say what to do at `now`."""
        rules = self.rules
        if rules.mode == "never":
            return Verdict("stay", rules.never, until=inf)
        off_hours, off_change = rules.power_off.at(now)
        way = self._ways["poweroff" if off_hours or rules.mode == "poweroff" else "suspend"]
        must_be_awake, awake_change = rules.awake.at(now)
        start = rules.awake.next_start(now)
        wake_at = _wake_at(start, way, now)
        if blockers := self._blockers(seen, now, awake_until=awake_change if must_be_awake else None):
            until = self._blocked_until(seen, now, awake_until=awake_change if must_be_awake else now)
            return Verdict("stay", blockers[0], until=until, wake_at=wake_at, blockers=blockers)
        sooner, sooner_change = rules.sooner.at(now)
        idle = rules.idle_after_sooner if sooner else rules.idle_after
        settled, rested = seen.awake_since + rules.minimum_awake, seen.last_activity + idle
        if now < settled or now < rested:
            text, until = (
                (self._too_busy[idle], min(rested, sooner_change)) if now < rested else (self._too_new, settled)
            )
            return Verdict("stay", text, until=until, wake_at=wake_at)
        worth = self._worth_while(way, now, start)
        if worth is None:
            text = SAVES_NOTHING if self._break_even[way.method] == inf else TOO_SHORT
            until = off_change if start is None else min(start, off_change)
            return Verdict("stay", text, until=until, wake_at=wake_at, blockers=(text,))
        wake_at = _wake_at(start, worth, now)
        text = self._unused[idle]
        if wake_at is None:
            return Verdict(worth.method, text, until=now)
        return Verdict(
            worth.method, f"{text}; it wakes {{}}", until=now, wake_at=wake_at, moment=wake_at, zone=rules.zone
        )

    def _worth_while(self, way: Way, now: float, start: float | None) -> Way | None:
        """Return the way to sleep until `start`: the wanted one, or suspend where power-off takes too long."""
        ways = (way,) if self.rules.mode == "poweroff" else (way, self.rules.suspend)
        for one in ways:
            least = self._break_even[one.method]
            if least < (inf if start is None else start - now):
                return one
        return None

    def _blockers(self, seen: Observed, now: float, *, awake_until: float | None) -> tuple[str, ...]:
        """Return a sentence for each thing that keeps it awake whatever the idle time."""
        found: list[str] = []
        if seen.active_requests or seen.queued_jobs:
            found.append("it answers requests")
        if seen.update_running:
            found.append("an update is being installed")
        if seen.sessions and not self.rules.sleep_while_logged_in:
            found += [f"{person} is logged in" for person in seen.sessions]
        if seen.inhibitors:
            found += seen.inhibitors
        if seen.stay_awake_until is not None and now < seen.stay_awake_until:
            found.append("it was asked to stay awake")
        if awake_until is not None:
            found.append(f"by its schedule it is awake until {clock_time(awake_until, self.rules.zone)}")
        return tuple(found)

    def _blocked_until(self, seen: Observed, now: float, *, awake_until: float) -> float:
        """Return until when a machine stays awake that something keeps awake."""
        people = seen.sessions and not self.rules.sleep_while_logged_in
        if seen.active_requests or seen.queued_jobs or seen.update_running or people or seen.inhibitors:
            return inf
        return max(awake_until, seen.stay_awake_until or now)


def _wake_at(start: float | None, way: Way, now: float) -> float | None:
    """Return when the machine must begin to wake to be there at `start`."""
    wake_at = None if start is None else start - way.up_seconds
    return wake_at if wake_at is not None and wake_at > now else None


def duration(seconds: float) -> str:
    """Write a duration in words: `15 minutes`, `90 seconds`."""
    if seconds in {1, 60}:
        return "a second" if seconds == 1 else "a minute"
    minutes = seconds / 60
    return f"{minutes:g} minutes" if minutes >= 2 and minutes == round(minutes) else f"{seconds:g} seconds"


def clock_time(moment: float, zone: tzinfo) -> str:
    """Write a moment by the house's clock: `Monday 06:30`."""
    return datetime.fromtimestamp(moment, zone).strftime("%A %H:%M")
