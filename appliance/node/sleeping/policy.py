"""What the sleep controller wants from a policy: it is made elsewhere, and passed in."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from appliance.node.dbus.logind import Method


@dataclass(frozen=True, slots=True)
class Observation:
    """What a policy decides on; times are Unix times in seconds."""

    last_activity: float
    """When an expert was last used, the daemon started or the machine woke, whichever was last."""
    awake_since: float
    """When the machine woke or the daemon started."""
    active_requests: int
    queued_jobs: int
    sessions: tuple[str, ...]
    """Users who are logged in, each with the seat or `remote`."""
    update_running: bool
    inhibitors: tuple[str, ...]
    """A sentence for each lock of another program that forbids sleep."""
    stay_awake_until: float | None


class Decision(Protocol):
    """What a policy decided."""

    @property
    def action(self) -> Literal["stay", "suspend", "poweroff"]:
        """What to do now."""

    @property
    def reason(self) -> str:
        """Why, in one sentence."""

    @property
    def blockers(self) -> tuple[str, ...]:
        """What keeps the machine awake, a sentence each."""

    @property
    def wake_at(self) -> float | None:
        """When the machine should be awake again by its own clock; Unix time."""


type Decide = Callable[[Observation, float], Decision]
"""Takes what was observed, and the time; no I/O."""


@dataclass(frozen=True, slots=True)
class SleepOptions:
    """What the settings allow."""

    method: Method | None = None
    """How this machine sleeps, when nothing else is decided; None is never, also when asked to."""
    without_wake: bool = False
    """Sleep even if neither a network card nor an alarm is known to be able to wake it."""
    busy_interval: float = 1.0
    """Seconds between two looks at what the experts are doing."""
    decide_interval: float = 5.0
    """Seconds between two decisions."""


@dataclass(frozen=True, slots=True)
class Stay:
    """The decision of a node that nobody gave a policy."""

    reason: str = "by its settings this machine never sleeps"
    action: Literal["stay", "suspend", "poweroff"] = "stay"
    blockers: tuple[str, ...] = ()
    wake_at: float | None = None


def always_on(_seen: Observation, _now: float) -> Decision:
    """Decide to stay awake: somebody has to be there who wakes the others."""
    return Stay("it is the hub, which is always on")


def never(_seen: Observation, _now: float) -> Decision:
    """Decide to stay awake."""
    return Stay()
