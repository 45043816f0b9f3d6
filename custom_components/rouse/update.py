"""Updates of the nodes that run the image."""

import uuid
from collections.abc import Iterator
from typing import Any

from homeassistant.components import mqtt
from homeassistant.components.update import UpdateDeviceClass, UpdateEntity, UpdateEntityFeature
from homeassistant.core import HomeAssistant
from homeassistant.exceptions import HomeAssistantError
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback
from homeassistant.helpers.json import json_bytes

from . import topics
from .entity import NodeEntity, async_track_entities
from .errors import UpdateCommandError
from .hub import Hub, RouseConfigEntry
from .messages import NodeUpdate, UpdateCommand

PARALLEL_UPDATES = 0

WORKING = frozenset({"checking", "downloading", "installing", "rebooting", "verifying"})
AWAY = frozenset({"rebooting", "verifying"})
"""States in which a node that is not on the bus is only restarting."""


async def async_setup_entry(
    hass: HomeAssistant, entry: RouseConfigEntry, async_add_entities: AddConfigEntryEntitiesCallback
) -> None:
    """Add an update for each node that runs the image."""

    def updates(hub: Hub) -> Iterator[ImageUpdate]:
        for name, node, _ in hub.nodes():
            if node.update is not None:
                yield ImageUpdate(hub, name)

    async_track_entities(hass, entry, async_add_entities, updates)


class ImageUpdate(NodeEntity, UpdateEntity):
    """The image of a node."""

    _attr_device_class = UpdateDeviceClass.FIRMWARE
    _attr_supported_features = (
        UpdateEntityFeature.INSTALL | UpdateEntityFeature.PROGRESS | UpdateEntityFeature.SPECIFIC_VERSION
    )
    _attr_title = "Rouse"
    _attr_translation_key = "image"

    def __init__(self, hub: Hub, name: str) -> None:
        super().__init__(hub, name, "update")

    @property
    def _update(self) -> NodeUpdate | None:
        return self.node.update if self.node else None

    @property
    def exists(self) -> bool:
        """Whether the node still runs the image."""
        return self._update is not None

    @property
    def available(self) -> bool:
        """Whether the node is there, or restarts because of an update."""
        restarting = self.hub.connected and self._update is not None and self._update.state in AWAY
        return restarting or super().available

    @property
    def installed_version(self) -> str | None:
        """The version that runs."""
        return self._update.installed if self._update else None

    @property
    def latest_version(self) -> str | None:
        """The newest version; the node has compared it."""
        return self._update.latest if self._update else None

    def version_is_newer(self, latest_version: str, installed_version: str) -> bool:
        """Whether it is newer: the node names none that is not, and orders versions as its boot loader does."""
        return latest_version != installed_version

    @property
    def in_progress(self) -> bool:
        """Whether something is being done."""
        # A look for updates is no update, unless it begins one.
        if self._update is None or (self._update.state == "checking" and self._update.version is None):
            return False
        return self._update.state in WORKING

    @property
    def update_percentage(self) -> float | None:
        """How far it is."""
        progress = self._update.progress if self._update else None
        return round(100 * progress, 1) if progress is not None else None

    @property
    def release_url(self) -> str | None:
        """Where people read about the newest version."""
        return self._update.notes_url if self._update else None

    @property
    def release_summary(self) -> str | None:
        """What the node does or waits for, or what went wrong."""
        if self._update is None:
            return None
        return (self._update.error or self._update.detail)[:255] or None

    @property
    def extra_state_attributes(self) -> dict[str, Any]:
        """What became of the last update."""
        return {"phase": self._update.state} if self._update else {}

    async def async_install(self, version: str | None, backup: bool, **_: Any) -> None:  # noqa: ARG002, FBT001 - Home Assistant's signature
        """Ask the node to install a version; it tells by itself how that goes."""
        update = self._update
        if update is None or self.node is None or not self.node.online:
            raise UpdateCommandError("node_offline")
        if self.in_progress:
            raise UpdateCommandError("update_running")
        # Whoever chooses a version by hand means it.
        command = UpdateCommand(uuid.uuid4().hex, "install", version or update.latest, downgrade=version is not None)
        try:
            await mqtt.async_publish(self.hass, topics.update_commands(self.node_name), json_bytes(command), qos=1)
        except HomeAssistantError as error:
            raise UpdateCommandError("mqtt_disconnected") from error
