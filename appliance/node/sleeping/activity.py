"""Since when nobody has used this machine's experts."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from appliance.node.clock import Clock
from appliance.node.supervised import Activity


class WatchedForActivity(Protocol):
    """An expert, or a worker that lends this machine to one."""

    @property
    def name(self) -> str:
        """Its name."""

    async def activity(self) -> Activity | None:
        """Ask what it is doing; None if it is not ready or does not answer."""

    async def save_prefixes(self) -> bool:
        """Have it write to disk what would be lost with its memory."""


@dataclass(frozen=True, slots=True)
class Busyness:
    """What all of them are doing."""

    active: int = 0
    queued: int = 0
    lent_to: int = 0
    """Experts elsewhere that this machine holds layers for."""
    idle: float = 0.0
    """Seconds without use, by CLOCK_MONOTONIC; see `appliance.node.clock`."""

    @property
    def generating(self) -> bool:
        """Whether somebody waits for an answer."""
        return self.active + self.queued > 0


class ActivityWatch:
    """Asks the experts, and keeps the time of their last use."""

    def __init__(self, experts: Sequence[WatchedForActivity], clock: Clock) -> None:
        """Take what is watched; to be started counts as use."""
        self._experts = experts
        self._clock = clock
        self._last = clock.monotonic()

    def touch(self) -> None:
        """Count this moment as use: whoever wakes a machine is about to use it."""
        self._last = self._clock.monotonic()

    async def look(self) -> Busyness:
        """Ask all of them at once."""
        answers = await asyncio.gather(*(expert.activity() for expert in self._experts))
        known = [answer for answer in answers if answer is not None]
        active, queued = sum(answer.active for answer in known), sum(answer.queued for answer in known)
        now = self._clock.monotonic()
        for answer in known:
            if answer.active or answer.queued:
                self._last = now
            elif answer.idle is not None:
                self._last = max(self._last, now - answer.idle)
        return Busyness(
            active=active,
            queued=queued,
            lent_to=sum(answer.clients for answer in known),
            idle=max(0.0, now - self._last),
        )
