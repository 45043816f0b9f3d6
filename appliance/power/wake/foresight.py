"""Wakes by the clock, and before hours in which an expert is likely to be asked."""

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import tzinfo

from appliance.bus.client import Bus
from appliance.bus.errors import BusUnavailableError
from appliance.bus.power_messages import PowerCommand
from appliance.bus.topics import POWER_COMMAND
from appliance.power.schedule import WeeklySchedule
from appliance.power.wake.commands import Commands
from appliance.power.wake.experts import ExpertWaker
from appliance.power.wake.forecast import Forecast
from appliance.power.wake.ids import new_id
from appliance.power.wake.waker import Waker
from appliance.settings.waking import WakeSettings
from appliance.settings.weekly import parse_all

_log = logging.getLogger(__name__)

LOOK_SECONDS = 20.0
"""Time between two looks at the clock; no time is missed by more."""
MISSED_SECONDS = 600.0
"""A time that passed while the hub was away, or its clock was wrong, is still obeyed for so long."""
STAY_SECONDS = 600.0
"""For how long a node that is likely to be needed is asked to stay awake; it is asked again when half is over."""


class Foresight:
    """Looks at the clock."""

    def __init__(
        self,
        *,
        settings: WakeSettings,
        zone: tzinfo,
        bus: Bus,
        waker: Waker,
        experts: ExpertWaker,
        commands: Commands,
        forecast: Forecast,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Take the settings, the house's time zone and the parts."""
        self._settings = settings
        self._schedules = {
            name: WeeklySchedule(parse_all(schedule.at), zone) for name, schedule in settings.schedules.items()
        }
        self._bus = bus
        self._waker = waker
        self._experts = experts
        self._commands = commands
        self._forecast = forecast
        self._wall = wall
        self._looked: float | None = None

    async def run(self) -> None:
        """Look now and then, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Do what is due."""
        now = self._wall()
        earliest = now - MISSED_SECONDS
        since = earliest if self._looked is None else min(max(self._looked, earliest), now)
        self._looked = now
        for name, schedule in self._schedules.items():
            start = schedule.next_start(since)
            if start is not None and start <= now:
                self._wake_by_schedule(name)
        for expert in self._likely(now):
            await self._have_ready(expert, now)

    def _wake_by_schedule(self, name: str) -> None:
        _log.info("it is time for wake.schedules.%s", name)
        schedule = self._settings.schedules[name]
        for node in schedule.nodes:
            self._waker.wake_soon(node, f"schedule {name}", cause="schedule")
        self._experts.wake(schedule.experts, f"schedule {name}", cause="schedule")

    def _likely(self, now: float) -> tuple[str, ...]:
        threshold = self._settings.forecast_threshold
        if threshold >= 1:
            return ()
        try:
            soon = self._forecast.wanted(now + self._settings.forecast_ahead)
            current = self._forecast.wanted(now)
        except Exception:  # noqa: BLE001 - a forecast that fails must not end the schedules
            _log.exception("the forecast failed")
            return ()
        return tuple(
            sorted(
                expert
                for expert in soon.keys() | current.keys()
                if max(soon.get(expert, 0.0), current.get(expert, 0.0)) >= threshold
            )
        )

    async def _have_ready(self, expert: str, now: float) -> None:
        node = self._experts.awake_with(expert)
        if node is None:
            self._experts.wake([expert], f"{expert} is likely to be asked", cause="forecast")
            return
        is_asked = self._commands.awake_until(node.name) > now + STAY_SECONDS / 2
        if is_asked or self._commands.is_wanted_asleep(node.name):
            return
        command = PowerCommand(
            id=new_id(), action="stay_awake", until=now + STAY_SECONDS, reason=f"{expert} is likely to be asked"
        )
        try:
            await self._bus.publish(POWER_COMMAND, command, node=node.name)
        except BusUnavailableError as error:
            _log.warning("%s could not be asked to stay awake: %s", node.name, error)
