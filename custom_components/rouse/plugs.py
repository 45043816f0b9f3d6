"""The nodes' smart plugs: switched when the hub asks for it, and what they measure told to their nodes."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from homeassistant.config_entries import SIGNAL_CONFIG_ENTRY_CHANGED, ConfigEntry, ConfigEntryChange
from homeassistant.const import (
    ATTR_ENTITY_ID,
    ATTR_UNIT_OF_MEASUREMENT,
    SERVICE_TURN_OFF,
    SERVICE_TURN_ON,
    STATE_OFF,
    STATE_ON,
    UnitOfPower,
)
from homeassistant.core import Event, EventStateChangedData, HomeAssistant, State, callback
from homeassistant.exceptions import HomeAssistantError
from homeassistant.helpers.dispatcher import async_dispatcher_connect
from homeassistant.helpers.event import async_track_state_change_event, async_track_time_interval
from homeassistant.util.unit_conversion import PowerConverter

from . import topics
from .const import (
    CONF_NODE,
    CONF_POWER_SENSOR,
    CONF_SWITCH,
    READING_INTERVAL,
    SUBENTRY_PLUG,
    SWITCH_TIMEOUT,
)
from .hub import RouseConfigEntry
from .messages import PlugCommand, PlugReading, PlugResult

_LOGGER = logging.getLogger(__name__)

MOST_WATTS = 100_000
REMEMBERED = 32


class PlugError(Exception):
    """A plug could not be switched; the text tells the hub why."""


class Plugs:
    """Follows the hub's wishes and the plugs' sensors for one config entry."""

    def __init__(self, hass: HomeAssistant, entry: RouseConfigEntry) -> None:
        self._hass = hass
        self._entry = entry
        self._hub = entry.runtime_data
        self._seen: list[str] = []
        self._busy: set[str] = set()
        self._following: Callable[[], None] | None = None

    @callback
    def async_start(self) -> None:
        """Begin, for as long as the config entry is loaded."""
        self._hub.plug_commands = self._command
        unload = self._entry.async_on_unload
        interval = timedelta(seconds=READING_INTERVAL)
        unload(async_track_time_interval(self._hass, self._read_all, interval, name="rouse plugs"))
        unload(async_dispatcher_connect(self._hass, SIGNAL_CONFIG_ENTRY_CHANGED, self._entry_changed))
        unload(self._unfollow)
        self._follow()

    def _plugs(self) -> dict[str, Mapping[str, Any]]:
        """Return what the user chose, by node."""
        return {
            subentry.data[CONF_NODE]: subentry.data
            for subentry in self._entry.subentries.values()
            if subentry.subentry_type == SUBENTRY_PLUG
        }

    # --- Sensors --------------------------------------------------------------------------------

    @callback
    def _entry_changed(self, change: ConfigEntryChange, entry: ConfigEntry) -> None:
        if change is ConfigEntryChange.UPDATED and entry.entry_id == self._entry.entry_id:
            self._follow()

    @callback
    def _follow(self) -> None:
        """Listen to the sensors that are chosen now."""
        self._unfollow()
        sensors = {data[CONF_POWER_SENSOR]: node for node, data in self._plugs().items() if CONF_POWER_SENSOR in data}

        @callback
        def changed(event: Event[EventStateChangedData]) -> None:
            self._read(sensors[event.data["entity_id"]], event.data["new_state"])

        if sensors:
            self._following = async_track_state_change_event(self._hass, sensors, changed)

    @callback
    def _unfollow(self) -> None:
        if self._following is not None:
            self._following()
            self._following = None

    @callback
    def _read_all(self, _now: datetime) -> None:
        for node, data in self._plugs().items():
            if CONF_POWER_SENSOR in data:
                self._read(node, self._hass.states.get(data[CONF_POWER_SENSOR]))

    @callback
    def _read(self, node: str, state: State | None) -> None:
        watts = _watts(state)
        if watts is not None and self._hub.connected:
            self._entry.async_create_background_task(
                self._hass, self._tell(node, watts), f"rouse plug reading of {node}", eager_start=True
            )

    async def _tell(self, node: str, watts: float) -> None:
        try:
            await self._hub.async_send(topics.plug_readings(node), PlugReading(watts))
        except HomeAssistantError as error:
            _LOGGER.debug("Could not tell %s what its plug measures: %s", node, error)

    # --- Commands -------------------------------------------------------------------------------

    @callback
    def _command(self, node: str, command: PlugCommand) -> None:
        if command.id in self._seen:
            return
        self._seen = [*self._seen[-REMEMBERED:], command.id]
        if time.time() > command.deadline:
            _LOGGER.warning("Did not switch the plug of %s: the hub's wish is out of date", node)
            return
        # Home Assistant waits for it when it stops, so that no plug is left off.
        self._hass.async_create_task(self._obey(node, command), f"rouse plug of {node}")

    async def _obey(self, node: str, command: PlugCommand) -> None:
        try:
            message = await self._switch(node, command)
            sensor = self._plugs().get(node, {}).get(CONF_POWER_SENSOR)
            watts = _watts(self._hass.states.get(sensor)) if sensor else None
            result = PlugResult(command.id, ok=True, message=message, watts=watts)
        except (PlugError, HomeAssistantError) as error:
            _LOGGER.warning("Could not switch the plug of %s: %s", node, error)
            result = PlugResult(command.id, ok=False, message=str(error)[:500])
        try:
            await self._hub.async_send(topics.plug_results(node), result)
        except HomeAssistantError as error:
            _LOGGER.warning("Could not tell the hub about the plug of %s: %s", node, error)

    async def _switch(self, node: str, command: PlugCommand) -> str:
        plug = self._plugs().get(node)
        if plug is None:
            raise PlugError(f"no plug of {node} is chosen in Home Assistant")
        entity = plug[CONF_SWITCH]
        state = self._hass.states.get(entity)
        if state is None or state.state not in {STATE_ON, STATE_OFF}:
            raise PlugError(f"{entity} is not available")
        if entity in self._busy:
            raise PlugError(f"{entity} is being switched already")
        self._busy.add(entity)
        try:
            if command.action == "on" or state.state == STATE_OFF:
                await self._turn(entity, SERVICE_TURN_ON, STATE_ON)
                return f"{entity} was {state.state} and is on"
            try:
                await self._turn(entity, SERVICE_TURN_OFF, STATE_OFF)
                await asyncio.sleep(command.off_seconds)
            finally:
                await asyncio.shield(self._turn(entity, SERVICE_TURN_ON, STATE_ON))
            return f"{entity} was off for {command.off_seconds:g} s and is on"
        finally:
            self._busy.discard(entity)

    async def _turn(self, entity: str, service: str, wanted: str) -> None:
        """Switch, and wait until the plug says so itself."""
        there = asyncio.Event()

        @callback
        def changed(event: Event[EventStateChangedData]) -> None:
            new = event.data["new_state"]
            if new is not None and new.state == wanted:
                there.set()

        unsubscribe = async_track_state_change_event(self._hass, entity, changed)
        try:
            domain = entity.partition(".")[0]
            await self._hass.services.async_call(domain, service, {ATTR_ENTITY_ID: entity}, blocking=True)
            state = self._hass.states.get(entity)
            if state is None or state.state != wanted:
                async with asyncio.timeout(SWITCH_TIMEOUT):
                    await there.wait()
        except TimeoutError:
            raise PlugError(f"{entity} did not say within {SWITCH_TIMEOUT:g} s that it is {wanted}") from None
        finally:
            unsubscribe()


def _watts(state: State | None) -> float | None:
    """Return a power sensor's reading in watts, if it is one."""
    if state is None:
        return None
    unit = state.attributes.get(ATTR_UNIT_OF_MEASUREMENT, UnitOfPower.WATT)
    try:
        watts = PowerConverter.convert(float(state.state), unit, UnitOfPower.WATT)
    except (ValueError, HomeAssistantError):
        return None
    return watts if 0 <= watts <= MOST_WATTS else None
