"""What this node was asked for on the bus."""

import logging
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from appliance.bus.power_messages import PowerCommand
from appliance.node.clock import Clock

_log = logging.getLogger(__name__)

COMMAND_SECONDS = 600.0
"""How long a `sleep` without a time is wanted, if something is in its way at first."""
FOREVER = 1e11
REMEMBERED_COMMANDS = 64


@dataclass(frozen=True, slots=True)
class SleepWish:
    """A `sleep` that was asked for."""

    reason: str
    until: float
    """When it is no longer wanted; Unix time."""


class Wishes:
    """The last `sleep` or `stay_awake` that is still valid; each takes the other's place."""

    def __init__(self, clock: Clock) -> None:
        """Take the clocks; nothing is wished for."""
        self._clock = clock
        self._seen: deque[str] = deque(maxlen=REMEMBERED_COMMANDS)
        self._sleep: SleepWish | None = None
        self._awake_until: float | None = None

    async def take(self, command: PowerCommand | None, _levels: Mapping[str, str]) -> None:
        """Note a command; the handler for the bus. `wake` is the hub's business: this machine is awake."""
        if command is None or command.id in self._seen:
            return
        self._seen.append(command.id)
        reason = command.reason or "no reason given"
        if command.action == "stay_awake":
            self._sleep = None
            self._awake_until = FOREVER if command.until is None else command.until
            _log.info("asked to stay awake: %s", reason)
        elif command.action in {"sleep", "stay_off"}:
            self._awake_until = None
            until = self._clock.wall() + COMMAND_SECONDS if command.until is None else command.until
            self._sleep = SleepWish(command.reason, until)
            _log.info("asked to sleep: %s", reason)

    def forget_sleep(self) -> None:
        """It has slept, or could not."""
        self._sleep = None

    @property
    def sleep(self) -> SleepWish | None:
        """That it sleeps, if that is still wanted."""
        if self._sleep is not None and self._clock.wall() >= self._sleep.until:
            _log.info("it is no longer wanted that this machine sleeps; something was in the way all the time")
            self._sleep = None
        return self._sleep

    @property
    def awake_until(self) -> float | None:
        """Until when it was asked to stay awake; Unix time."""
        if self._awake_until is not None and self._clock.wall() >= self._awake_until:
            self._awake_until = None
        return self._awake_until
