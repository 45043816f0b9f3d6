"""Tells the hub that a question is likely to come, so that it wakes machines meanwhile."""

import logging

from homeassistant.components import assist_pipeline
from homeassistant.const import STATE_HOME, STATE_UNAVAILABLE, STATE_UNKNOWN
from homeassistant.core import Event, EventStateChangedData, HomeAssistant, callback
from homeassistant.exceptions import HomeAssistantError
from homeassistant.helpers import area_registry as ar
from homeassistant.helpers import device_registry as dr
from homeassistant.helpers import entity_registry as er
from homeassistant.helpers.event import TrackStates, async_track_state_change_filtered

from . import topics
from .const import CONF_HINTS, DEFAULT_HINTS, DOMAIN, HINT_ARRIVAL, HINT_SPEECH
from .hub import Hub, RouseConfigEntry, agent_key
from .messages import WakeHint

_LOGGER = logging.getLogger(__name__)

SATELLITES = "assist_satellite"
LISTENING = "listening"
PERSONS = "person"
_UNKNOWN = {STATE_UNAVAILABLE, STATE_UNKNOWN}


@callback
def async_track_hints(hass: HomeAssistant, entry: RouseConfigEntry) -> None:
    """Watch satellites and persons for as long as the config entry is loaded, as the options say."""
    chosen = set(entry.options.get(CONF_HINTS, DEFAULT_HINTS))
    domains = {domain for hint, domain in ((HINT_SPEECH, SATELLITES), (HINT_ARRIVAL, PERSONS)) if hint in chosen}
    if not domains:
        return

    @callback
    def changed(event: Event[EventStateChangedData]) -> None:
        entity, old, new = event.data["entity_id"], event.data["old_state"], event.data["new_state"]
        if old is None or new is None or old.state == new.state or old.state in _UNKNOWN:
            return
        if entity.startswith(f"{SATELLITES}.") and new.state == LISTENING:
            _send(hass, entry, "speech", _area(hass, entity))
        elif entity.startswith(f"{PERSONS}.") and new.state == STATE_HOME:
            _send(hass, entry, "arrival", None)

    tracker = async_track_state_change_filtered(hass, TrackStates(False, set(), domains), changed)
    entry.async_on_unload(tracker.async_remove)


@callback
def _send(hass: HomeAssistant, entry: RouseConfigEntry, kind: str, area: str | None) -> None:
    hub = entry.runtime_data
    if not hub.online:
        return
    for agent in async_assist_agents(hass, hub):
        hint = WakeHint("speech" if kind == "speech" else "arrival", agent, area)
        entry.async_create_background_task(hass, _tell(hub, hint), f"rouse hint for {agent}", eager_start=True)


async def _tell(hub: Hub, hint: WakeHint) -> None:
    try:
        await hub.async_send(topics.HINTS, hint)
    except HomeAssistantError as error:
        _LOGGER.debug("Could not give the hub a hint: %s", error)


@callback
def async_assist_agents(hass: HomeAssistant, hub: Hub) -> list[str]:
    """Return the hub's agents that some voice assistant uses: only those may be asked by what happens in the house."""
    try:
        pipelines = assist_pipeline.async_get_pipelines(hass)
    except KeyError:  # the component is not set up
        return []
    engines = {pipeline.conversation_engine for pipeline in pipelines}
    registry = er.async_get(hass)
    return [
        agent
        for agent in hub.agents
        if registry.async_get_entity_id("conversation", DOMAIN, f"{hub.slug}/{agent_key(agent)}") in engines
    ]


@callback
def _area(hass: HomeAssistant, entity_id: str) -> str | None:
    """Return the name of the area that an entity is in."""
    entity = er.async_get(hass).async_get(entity_id)
    if entity is None:
        return None
    area_id = entity.area_id
    if area_id is None and entity.device_id and (device := dr.async_get(hass).async_get(entity.device_id)):
        area_id = device.area_id
    area = ar.async_get(hass).async_get_area(area_id) if area_id else None
    return area.name[:200] if area else None
