"""The integration's action: a hint from an automation of the user's."""

import probatio
from homeassistant.config_entries import ConfigEntryState
from homeassistant.core import HomeAssistant, ServiceCall, callback
from homeassistant.exceptions import ServiceValidationError
from homeassistant.helpers import config_validation as cv

from . import topics
from .const import DOMAIN
from .hub import RouseConfigEntry
from .messages import WakeHint

SERVICE_HINT = "hint"
ATTR_KIND = "kind"
ATTR_AGENT = "agent"
ATTR_AREA = "area"

HINT_SCHEMA = probatio.Schema(
    {
        probatio.Required(ATTR_KIND, default="other"): probatio.In(["speech", "arrival", "other"]),
        probatio.Optional(ATTR_AGENT): cv.slug,
        probatio.Optional(ATTR_AREA): probatio.All(cv.string, probatio.Length(max=200)),
    }
)


@callback
def async_set_up_actions(hass: HomeAssistant) -> None:
    """Register the action."""

    async def hint(call: ServiceCall) -> None:
        """Tell every hub; each knows its agents.

        Raises:
            HomeAssistantError: there is no hub, or no agent of that name, or the broker is not there.
        """
        entries: list[RouseConfigEntry] = hass.config_entries.async_entries(DOMAIN)
        hubs = [entry.runtime_data for entry in entries if entry.state is ConfigEntryState.LOADED]
        if not hubs:
            raise ServiceValidationError(translation_domain=DOMAIN, translation_key="no_hub")
        agent = call.data.get(ATTR_AGENT)
        having = [hub for hub in hubs if agent is None or agent in hub.agents]
        if not having:
            raise ServiceValidationError(
                translation_domain=DOMAIN,
                translation_key="unknown_agent",
                translation_placeholders={"agent": str(agent)},
            )
        for hub in having:
            await hub.async_send(topics.HINTS, WakeHint(call.data[ATTR_KIND], agent, call.data.get(ATTR_AREA)))

    hass.services.async_register(DOMAIN, SERVICE_HINT, hint, schema=HINT_SCHEMA)
