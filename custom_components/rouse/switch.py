"""Puts nodes to sleep and wakes them."""

from collections.abc import Iterator
from typing import Any

from homeassistant.components.switch import SwitchEntity
from homeassistant.core import HomeAssistant
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback

from .entity import NodeEntity, async_track_entities
from .hub import Hub, RouseConfigEntry
from .power import async_command

PARALLEL_UPDATES = 0


async def async_setup_entry(
    hass: HomeAssistant, entry: RouseConfigEntry, async_add_entities: AddConfigEntryEntitiesCallback
) -> None:
    """Add a switch for each node that says whether it sleeps."""

    def switches(hub: Hub) -> Iterator[AwakeSwitch]:
        for name, node, _ in hub.nodes():
            if node.has_power:
                yield AwakeSwitch(hub, name)

    async_track_entities(hass, entry, async_add_entities, switches)


class AwakeSwitch(NodeEntity, SwitchEntity):
    """Whether a node is awake. Both ways take a while, and a node that is in use sleeps later."""

    _attr_translation_key = "awake"

    def __init__(self, hub: Hub, name: str) -> None:
        super().__init__(hub, name, "awake")

    @property
    def available(self) -> bool:
        """Whether the hub is there to wake the node, or the node to go to sleep."""
        return self.hub.connected and (self.hub.online or super().available)

    @property
    def is_on(self) -> bool:
        """Whether the node is awake."""
        return self.node is not None and self.node.online and self.node.state == "awake"

    async def async_turn_on(self, **kwargs: Any) -> None:  # noqa: ARG002 - Home Assistant's signature
        """Have the hub wake the node."""
        await async_command(self.hub, self.node_name, "wake", "switched on in Home Assistant")

    async def async_turn_off(self, **kwargs: Any) -> None:  # noqa: ARG002 - Home Assistant's signature
        """Ask the node to sleep."""
        await async_command(self.hub, self.node_name, "sleep", "switched off in Home Assistant")
