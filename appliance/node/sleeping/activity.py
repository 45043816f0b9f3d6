"""Since when nobody has used this machine's experts."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from appliance.node.clock import Clock
from appliance.node.supervised import Activity, ExpertState

LOADING_SECONDS = 3600.0
"""A model that is loaded for longer will never be: it does not keep the machine awake any more."""


class WatchedForActivity(Protocol):
    """An expert, or a worker that lends this machine to one."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def state(self) -> ExpertState:
        """Whether it is still starting."""

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
        self._loading: dict[str, float] = {}
        """Since when each expert that is not ready has not been."""

    def touch(self) -> None:
        """Count this moment as use: whoever wakes a machine is about to use it."""
        self._last = self._clock.monotonic()

    async def look(self) -> Busyness:
        """Ask all of them at once. To load a model counts as use: a large one takes longer than the idle time."""
        answers = await asyncio.gather(*(expert.activity() for expert in self._experts))
        known = [answer for answer in answers if answer is not None]
        active, queued = sum(answer.active for answer in known), sum(answer.queued for answer in known)
        now = self._clock.monotonic()
        if self._is_loading(answers, now):
            self._last = now
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

    def _is_loading(self, answers: Sequence[Activity | None], now: float) -> bool:
        loading = False
        for expert, answer in zip(self._experts, answers, strict=True):
            if answer is not None:
                self._loading.pop(expert.name, None)
                continue
            since = self._loading.setdefault(expert.name, now)
            loading |= expert.state == "starting" and now - since < LOADING_SECONDS
        return loading
