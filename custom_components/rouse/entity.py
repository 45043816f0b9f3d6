"""What the entities of all platforms have in common."""

from abc import abstractmethod
from collections.abc import Callable, Iterable

from homeassistant.core import HomeAssistant, callback
from homeassistant.helpers.device_registry import DeviceInfo
from homeassistant.helpers.dispatcher import async_dispatcher_connect
from homeassistant.helpers.entity import Entity
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback

from .devices import node_identifier
from .hub import HUB, INVENTORY, Hub, Node, RouseConfigEntry, node_key


class RouseEntity(Entity):
    """Follows one thing on the bus, and goes when that goes."""

    _attr_has_entity_name = True
    _attr_should_poll = False

    def __init__(self, hub: Hub, key: str, unique_id: str) -> None:
        self.hub = hub
        self._key = key
        self._attr_unique_id = f"{hub.slug}/{unique_id}"

    @property
    @abstractmethod
    def exists(self) -> bool:
        """Whether the bus still knows what this entity is about."""

    async def async_added_to_hass(self) -> None:
        """Listen for changes."""
        await super().async_added_to_hass()
        for key in (HUB, self._key):
            self.async_on_remove(async_dispatcher_connect(self.hass, self.hub.signal(key), self._changed))

    @callback
    def _changed(self) -> None:
        if self.exists:
            self.async_write_ha_state()
        else:
            self.hass.async_create_task(self.async_remove())


class NodeEntity(RouseEntity):
    """Says something about a node."""

    def __init__(self, hub: Hub, name: str, suffix: str) -> None:
        super().__init__(hub, node_key(name), f"{node_key(name)}/{suffix}")
        self.node_name = name
        self._attr_device_info = DeviceInfo(identifiers={node_identifier(hub, name)})

    @property
    def node(self) -> Node | None:
        """What is known about the node, as long as it is announced."""
        return self.hub.node(self.node_name)

    @property
    def exists(self) -> bool:
        """Whether the node is announced."""
        return self.node is not None

    @property
    def available(self) -> bool:
        """Whether the node is there."""
        return self.hub.connected and self.node is not None and self.node.online


class LastingNodeEntity(NodeEntity):
    """Says something that stays true while the node sleeps."""

    @property
    def available(self) -> bool:
        """Whether the broker is there to tell."""
        return self.hub.connected and self.node is not None


@callback
def async_track_entities(
    hass: HomeAssistant,
    entry: RouseConfigEntry,
    async_add_entities: AddConfigEntryEntitiesCallback,
    candidates: Callable[[Hub], Iterable[RouseEntity]],
) -> None:
    """Add the entities for what is on the bus, now and later."""
    hub = entry.runtime_data
    known: set[str | None] = set()

    @callback
    def update() -> None:
        entities = {entity.unique_id: entity for entity in candidates(hub)}
        new = entities.keys() - known
        known.clear()
        known.update(entities)
        async_add_entities(entity for unique_id, entity in entities.items() if unique_id in new)

    entry.async_on_unload(async_dispatcher_connect(hass, hub.signal(INVENTORY), update))
    update()
