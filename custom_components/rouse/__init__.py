"""Rouse: local AI experts for Home Assistant that sleep until they are needed."""

from homeassistant.components import mqtt
from homeassistant.config_entries import ConfigEntryState
from homeassistant.const import Platform
from homeassistant.core import HomeAssistant
from homeassistant.exceptions import ConfigEntryNotReady
from homeassistant.helpers import config_validation as cv
from homeassistant.helpers.device_registry import DeviceEntry
from homeassistant.helpers.typing import ConfigType

from .actions import async_set_up_actions
from .const import DOMAIN
from .devices import async_track_devices, hub_identifier, node_identifier
from .hints import async_track_hints
from .hub import Hub, RouseConfigEntry
from .plugs import Plugs
from .repairs import async_track_repairs

CONFIG_SCHEMA = cv.config_entry_only_config_schema(DOMAIN)
PLATFORMS = [Platform.BINARY_SENSOR, Platform.CONVERSATION, Platform.SENSOR, Platform.SWITCH, Platform.UPDATE]


async def async_setup(hass: HomeAssistant, config: ConfigType) -> bool:  # noqa: ARG001 - Home Assistant's signature
    """Register the action."""
    async_set_up_actions(hass)
    return True


async def async_setup_entry(hass: HomeAssistant, entry: RouseConfigEntry) -> bool:
    """Follow a hub over MQTT."""
    if not await mqtt.async_wait_for_mqtt_client(hass):
        raise ConfigEntryNotReady(translation_domain=DOMAIN, translation_key="mqtt_unavailable")
    entry.runtime_data = hub = Hub(hass, entry)
    async_track_devices(hass, entry)
    async_track_repairs(hass, entry)
    async_track_hints(hass, entry)
    Plugs(hass, entry).async_start()
    await hass.config_entries.async_forward_entry_setups(entry, PLATFORMS)
    await hub.async_start()
    return True


async def async_unload_entry(hass: HomeAssistant, entry: RouseConfigEntry) -> bool:
    """Stop following the hub."""
    return await hass.config_entries.async_unload_platforms(entry, PLATFORMS)


async def async_remove_config_entry_device(
    hass: HomeAssistant,  # noqa: ARG001 - Home Assistant's signature
    entry: RouseConfigEntry,
    device: DeviceEntry,
) -> bool:
    """Let a device go unless it is, or may be, the hub or a node that is still announced."""
    if entry.state is not ConfigEntryState.LOADED:
        return False
    hub = entry.runtime_data
    alive = {hub_identifier(hub), *(node_identifier(hub, name) for name, *_ in hub.nodes())}
    return not alive & device.identifiers
