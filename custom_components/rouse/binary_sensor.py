"""Whether the nodes are there."""

from collections.abc import Iterator

from homeassistant.components.binary_sensor import BinarySensorEntity
from homeassistant.components.binary_sensor.const import BinarySensorDeviceClass
from homeassistant.const import EntityCategory
from homeassistant.core import HomeAssistant
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback

from .entity import NodeEntity, async_track_entities
from .hub import Hub, RouseConfigEntry

PARALLEL_UPDATES = 0


async def async_setup_entry(
    hass: HomeAssistant, entry: RouseConfigEntry, async_add_entities: AddConfigEntryEntitiesCallback
) -> None:
    """Add a connectivity sensor for each node."""

    def sensors(hub: Hub) -> Iterator[ConnectivitySensor]:
        for name, *_ in hub.nodes():
            yield ConnectivitySensor(hub, name)

    async_track_entities(hass, entry, async_add_entities, sensors)


class ConnectivitySensor(NodeEntity, BinarySensorEntity):
    """Whether a node is on the bus; a sleeping node is not."""

    _attr_device_class = BinarySensorDeviceClass.CONNECTIVITY
    _attr_entity_category = EntityCategory.DIAGNOSTIC

    def __init__(self, hub: Hub, name: str) -> None:
        super().__init__(hub, name, "connectivity")

    @property
    def available(self) -> bool:
        """Whether the broker is there to tell."""
        return self.hub.connected

    @property
    def is_on(self) -> bool:
        """Whether the node is there."""
        return self.node is not None and self.node.online
