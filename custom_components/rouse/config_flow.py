"""Setting up a hub: discovered on the bus, or looked for by hand."""

import asyncio
from typing import Any

import probatio
from homeassistant.components import mqtt
from homeassistant.config_entries import (
    ConfigEntry,
    ConfigFlow,
    ConfigFlowResult,
    ConfigSubentryFlow,
    OptionsFlowWithReload,
)
from homeassistant.const import CONF_LLM_HASS_API, CONF_NAME, CONF_PROMPT, CONF_TIMEOUT
from homeassistant.core import callback
from homeassistant.helpers import llm
from homeassistant.helpers.selector import (
    NumberSelector,
    NumberSelectorConfig,
    NumberSelectorMode,
    SelectOptionDict,
    SelectSelector,
    SelectSelectorConfig,
    TemplateSelector,
)
from homeassistant.helpers.service_info.mqtt import MqttServiceInfo

from .const import (
    CONF_HINTS,
    CONF_HUB,
    DEFAULT_HINTS,
    DEFAULT_TIMEOUT,
    DISCOVERY_TIMEOUT,
    DOMAIN,
    HINT_ARRIVAL,
    HINT_SPEECH,
    MAX_TIMEOUT,
    MIN_TIMEOUT,
    SUBENTRY_PLUG,
)
from .hub import RouseConfigEntry
from .messages import HubAnnouncement
from .plug_flow import PlugSubentryFlow
from .topics import HUB_ANNOUNCEMENT, MalformedPayloadError

DEFAULT_OPTIONS = {CONF_LLM_HASS_API: [llm.LLM_API_ASSIST], CONF_TIMEOUT: DEFAULT_TIMEOUT}


class RouseOptionsFlow(OptionsFlowWithReload):
    """Changes what the agents may do and how long to wait for them."""

    async def async_step_init(self, user_input: dict[str, Any] | None = None) -> ConfigFlowResult:
        """Show and store the options."""
        if user_input is not None:
            return self.async_create_entry(data=user_input)
        apis = {api.id: api.name for api in llm.async_get_apis(self.hass)}
        schema = probatio.Schema(
            {
                probatio.Optional(CONF_LLM_HASS_API, default=[]): SelectSelector(
                    SelectSelectorConfig(
                        options=[SelectOptionDict(value=key, label=name) for key, name in apis.items()],
                        multiple=True,
                    )
                ),
                probatio.Optional(CONF_PROMPT): TemplateSelector(),
                probatio.Required(CONF_TIMEOUT, default=DEFAULT_TIMEOUT): NumberSelector(
                    NumberSelectorConfig(
                        min=MIN_TIMEOUT,
                        max=MAX_TIMEOUT,
                        step=1,
                        unit_of_measurement="s",
                        mode=NumberSelectorMode.BOX,
                    )
                ),
                probatio.Optional(CONF_HINTS, default=DEFAULT_HINTS): SelectSelector(
                    SelectSelectorConfig(options=[HINT_SPEECH, HINT_ARRIVAL], multiple=True, translation_key=CONF_HINTS)
                ),
            }
        )
        options = dict(self.config_entry.options)
        # An API that is gone can't be chosen any more.
        options[CONF_LLM_HASS_API] = [api for api in options.get(CONF_LLM_HASS_API, []) if api in apis]
        return self.async_show_form(step_id="init", data_schema=self.add_suggested_values_to_schema(schema, options))


class RouseConfigFlow(ConfigFlow, domain=DOMAIN):
    """Makes a config entry for a hub."""

    VERSION = 1

    _announcement: HubAnnouncement

    @staticmethod
    @callback
    def async_get_options_flow(config_entry: RouseConfigEntry) -> RouseOptionsFlow:  # noqa: ARG004
        """Return the flow that changes the options."""
        return RouseOptionsFlow()

    @classmethod
    @callback
    def async_get_supported_subentry_types(
        cls,
        config_entry: ConfigEntry,  # noqa: ARG003 - Home Assistant's signature
    ) -> dict[str, type[ConfigSubentryFlow]]:
        """Return what can be added to a hub: a node's smart plug."""
        return {SUBENTRY_PLUG: PlugSubentryFlow}

    async def async_step_mqtt(self, discovery_info: MqttServiceInfo) -> ConfigFlowResult:
        """Look at an announcement on the bus."""
        if not discovery_info.payload:
            return self.async_abort(reason="hub_gone")
        try:
            announcement = HUB_ANNOUNCEMENT.decode(discovery_info.payload, {})
        except MalformedPayloadError as error:
            return self.async_abort(reason="malformed_announcement", description_placeholders={"error": str(error)})
        await self._async_adopt(announcement)
        return await self.async_step_confirm()

    async def async_step_confirm(self, user_input: dict[str, Any] | None = None) -> ConfigFlowResult:
        """Ask whether to set up the discovered hub."""
        if user_input is not None:
            return self._create_entry(self._announcement)
        self._set_confirm_only()
        name = self._announcement.name or self._announcement.hub
        self.context["title_placeholders"] = {CONF_NAME: name}
        return self.async_show_form(step_id="confirm", description_placeholders={CONF_NAME: name})

    async def async_step_user(self, user_input: dict[str, Any] | None = None) -> ConfigFlowResult:
        """Look for a hub on the bus."""
        errors: dict[str, str] = {}
        if user_input is not None:
            if not self.hass.config_entries.async_loaded_entries(mqtt.DOMAIN):
                errors["base"] = "mqtt_not_configured"
            elif not mqtt.is_connected(self.hass):
                errors["base"] = "mqtt_disconnected"
            elif announcement := await self._async_find_hub():
                await self._async_adopt(announcement, raise_on_progress=False)
                return self._create_entry(announcement)
            else:
                errors["base"] = "no_hub"
        return self.async_show_form(step_id="user", data_schema=probatio.Schema({}), errors=errors)

    async def _async_find_hub(self) -> HubAnnouncement | None:
        """Wait for the retained announcement, past malformed ones."""
        found: asyncio.Future[HubAnnouncement] = self.hass.loop.create_future()

        @callback
        def received(message: mqtt.ReceiveMessage) -> None:
            try:
                announcement = HUB_ANNOUNCEMENT.decode(message.payload, {})
            except MalformedPayloadError:
                return
            if not found.done():
                found.set_result(announcement)

        unsubscribe = await mqtt.async_subscribe(self.hass, HUB_ANNOUNCEMENT.at(), received, qos=1, encoding=None)
        try:
            async with asyncio.timeout(DISCOVERY_TIMEOUT):
                return await found
        except TimeoutError:
            return None
        finally:
            unsubscribe()

    async def _async_adopt(self, announcement: HubAnnouncement, *, raise_on_progress: bool = True) -> None:
        await self.async_set_unique_id(announcement.hub, raise_on_progress=raise_on_progress)
        self._abort_if_unique_id_configured()
        self._announcement = announcement

    def _create_entry(self, announcement: HubAnnouncement) -> ConfigFlowResult:
        return self.async_create_entry(
            title=announcement.name or announcement.hub,
            data={CONF_HUB: announcement.hub},
            options=DEFAULT_OPTIONS,
        )
