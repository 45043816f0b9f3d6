"""The entities that Home Assistant exposes to an assistant."""

from homeassistant.components.homeassistant.exposed_entities import async_should_expose
from homeassistant.core import HomeAssistant, State, callback
from homeassistant.helpers import area_registry as ar
from homeassistant.helpers import device_registry as dr
from homeassistant.helpers import entity_registry as er
from homeassistant.helpers import intent

from .messages import ExposedEntity

MAX_ENTITIES = 5000
"""As many as one request may carry."""


@callback
def async_exposed_entities(hass: HomeAssistant, assistant: str) -> tuple[ExposedEntity, ...]:
    """Return what is exposed to an assistant, with names, areas and states, by entity id."""
    exposed = sorted(
        (state for state in hass.states.async_all() if async_should_expose(hass, assistant, state.entity_id)),
        key=lambda state: state.entity_id,
    )
    return tuple(_describe(hass, state) for state in exposed[:MAX_ENTITIES])


def _describe(hass: HomeAssistant, state: State) -> ExposedEntity:
    entry = er.async_get(hass).async_get(state.entity_id)
    names = intent.async_get_entity_aliases(hass, entry, state=state)
    return ExposedEntity(
        entity_id=state.entity_id,
        names=tuple(name for name in names if name.strip()) or (state.name,),
        domain=state.domain,
        area=_area(hass, entry) if entry else None,
        state=state.state,
    )


def _area(hass: HomeAssistant, entry: er.RegistryEntry) -> str | None:
    area_id = entry.area_id
    if area_id is None and entry.device_id:
        device = dr.async_get(hass).async_get(entry.device_id)
        area_id = dr.async_get_effective_area_id(hass, device) if device else None
    area = ar.async_get(hass).async_get_area(area_id) if area_id else None
    return area.name if area else None
