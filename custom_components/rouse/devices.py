"""The hub and its nodes as devices."""

from homeassistant.core import HomeAssistant, callback
from homeassistant.helpers import device_registry as dr
from homeassistant.helpers.dispatcher import async_dispatcher_connect

from .const import DOMAIN
from .hub import HUB, INVENTORY, Hub, RouseConfigEntry


def hub_identifier(hub: Hub) -> tuple[str, str]:
    """Identify the hub's device."""
    return (DOMAIN, hub.slug)


def node_identifier(hub: Hub, node: str) -> tuple[str, str]:
    """Identify a node's device."""
    return (DOMAIN, f"{hub.slug}/{node}")


@callback
def async_track_devices(hass: HomeAssistant, entry: RouseConfigEntry) -> None:
    """Keep the devices like their announcements for as long as the config entry is loaded."""
    hub = entry.runtime_data
    registry = dr.async_get(hass)

    @callback
    def update_hub() -> str:
        announced = hub.announcement if hub.announcement and hub.announcement.hub == hub.slug else None
        return registry.async_get_or_create(
            config_entry_id=entry.entry_id,
            identifiers={hub_identifier(hub)},
            entry_type=dr.DeviceEntryType.SERVICE,
            manufacturer="Rouse",
            model="Hub",
            name=(announced.name if announced else None) or hub.name,
            sw_version=announced.version if announced else None,
        ).id

    @callback
    def update_nodes() -> None:
        for name, _, announced in hub.nodes():
            registry.async_get_or_create(
                config_entry_id=entry.entry_id,
                identifiers={node_identifier(hub, name)},
                model=announced.hardware.cpu,
                hw_version=announced.hardware.architecture,
                name=announced.name or name,
                sw_version=announced.version,
                via_device_id=hub_device_id,
            )

    hub_device_id = update_hub()
    entry.async_on_unload(async_dispatcher_connect(hass, hub.signal(HUB), update_hub))
    entry.async_on_unload(async_dispatcher_connect(hass, hub.signal(INVENTORY), update_nodes))
