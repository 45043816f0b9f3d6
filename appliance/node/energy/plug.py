"""What a smart plug measures, told on the bus by Home Assistant."""

from collections.abc import Callable, Mapping

from appliance.bus.power_messages import PlugReading
from appliance.node.energy.meter import MeterError, Reading, Source

STALE_SECONDS = 300.0
"""Plugs report when something changes, or every few minutes; a sensor that is silent for longer is gone."""


class Plug:
    """Keeps the last reading; `take` is the bus's handler."""

    source: Source = "plug"

    def __init__(self, monotonic: Callable[[], float]) -> None:
        """Take a clock that stands still while the machine sleeps."""
        self._monotonic = monotonic
        self._last: tuple[float, float] | None = None

    async def take(self, message: PlugReading | None, _levels: Mapping[str, str]) -> None:
        """Note what the plug measures."""
        if message is not None:
            self._last = (message.watts, self._monotonic())

    async def read(self) -> Reading:
        """Return what was told last."""
        if self._last is None or self._monotonic() - self._last[1] > STALE_SECONDS:
            raise MeterError("the plug's sensor says nothing")
        return Reading("plug", self._last[0])

    def forget(self) -> None:
        """Drop what was told before the machine slept."""
        self._last = None
