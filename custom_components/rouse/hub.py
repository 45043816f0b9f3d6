"""What the bus says about a hub, its nodes, experts and agents, kept up to date."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from homeassistant.components import mqtt
from homeassistant.config_entries import ConfigEntry
from homeassistant.core import HomeAssistant, callback
from homeassistant.exceptions import HomeAssistantError
from homeassistant.helpers.dispatcher import async_dispatcher_send
from homeassistant.helpers.json import json_bytes

from . import topics
from .chat import Event
from .const import CONF_HUB, DOMAIN
from .link import ChatLink
from .messages import (
    AgentAnnouncement,
    ExpertStatus,
    HubAnnouncement,
    NodeAnnouncement,
    NodeEnergy,
    NodePower,
    NodeTelemetry,
    NodeUpdate,
    PlugCommand,
    Presence,
    RepairNotice,
    Reply,
)
from .topics import MalformedPayloadError, Topic

_LOGGER = logging.getLogger(__name__)

type RouseConfigEntry = ConfigEntry[Hub]

HUB = "hub"
"""What changed: the connection, or the hub itself."""
INVENTORY = "inventory"
"""What changed: which nodes, experts, agents or readings there are."""

REPAIRS = "repairs"
"""What changed: which nodes are missed."""


def node_key(node: str) -> str:
    """Name a node among the things that change."""
    return f"nodes/{node}"


def agent_key(agent: str) -> str:
    """Name an agent among the things that change."""
    return f"agents/{agent}"


@dataclass
class Node:
    """What is known about a node."""

    announcement: NodeAnnouncement | None = None
    online: bool = False
    telemetry: NodeTelemetry | None = None
    has_temperature: bool = False
    """Whether a temperature was reported so far."""
    experts: dict[str, ExpertStatus] = field(default_factory=dict)
    update: NodeUpdate | None = None
    """What a node that runs the image says of its updates."""
    power: NodePower | None = None
    has_power: bool = False
    """Whether it told of its power so far."""
    energy: NodeEnergy | None = None
    has_energy: bool = False
    """Whether it told of its energy so far."""
    repair: RepairNotice | None = None

    @property
    def state(self) -> str:
        """What it is doing; `lost` is gone without goodbye."""
        said = self.power.state if self.power else "awake"
        return "lost" if said == "awake" and not self.online else said


class Hub:
    """Follows the bus for one config entry and tells the entities what changed."""

    def __init__(self, hass: HomeAssistant, entry: RouseConfigEntry) -> None:
        self.slug: str = entry.data[CONF_HUB]
        self.name = entry.title
        self.announcement: HubAnnouncement | None = None
        self.agents: dict[str, AgentAnnouncement] = {}
        self.plug_commands: Callable[[str, PlugCommand], None] = lambda _node, _command: None
        """Takes the hub's wishes for smart plugs."""
        self.chat = ChatLink(hass, f"ha-{entry.entry_id.lower()}", lambda: self.trouble)
        self._hass = hass
        self._entry = entry
        self._nodes: dict[str, Node] = {}
        self._present = False
        self._was_online = False
        self._malformed: set[str] = set()
        self._handlers: dict[Topic[Any], Callable[[Any, dict[str, str]], None]] = {
            topics.HUB_STATUS: self._hub_status,
            topics.HUB_ANNOUNCEMENT: self._hub_announcement,
            topics.NODE_STATUS: self._node_status,
            topics.NODE_ANNOUNCEMENT: self._node_announcement,
            topics.NODE_TELEMETRY: self._node_telemetry,
            topics.NODE_UPDATE: self._node_update,
            topics.EXPERT_STATUS: self._expert_status,
            topics.NODE_ENERGY: self._node_energy,
            topics.NODE_POWER: self._node_power,
            topics.PLUG_COMMAND: self._plug_command,
            topics.REPAIR_NOTICE: self._repair_notice,
            topics.AGENT_ANNOUNCEMENT: self._agent_announcement,
            topics.REPLY: self._reply,
        }

    @property
    def connected(self) -> bool:
        """Whether Home Assistant is connected to the broker."""
        return mqtt.is_connected(self._hass)

    @property
    def trouble(self) -> str | None:
        """Why the hub can't be reached, as a `ChatError`'s reason, or None."""
        if not self.connected:
            return "mqtt_disconnected"
        replaced = self.announcement is not None and self.announcement.hub != self.slug
        return "hub_offline" if replaced or not self._present else None

    @property
    def online(self) -> bool:
        """Whether the hub is there, and is the one this entry was made for."""
        return self.trouble is None

    def node(self, node: str) -> Node | None:
        """Return what is known about an announced node."""
        found = self._nodes.get(node)
        return found if found and found.announcement else None

    def nodes(self) -> Iterator[tuple[str, Node, NodeAnnouncement]]:
        """Yield each announced node with its name and announcement."""
        for name, node in self._nodes.items():
            if node.announcement:
                yield name, node, node.announcement

    def signal(self, key: str) -> str:
        """Name the dispatcher's signal for a change."""
        return f"{DOMAIN}_{self._entry.entry_id}_{key}"

    async def async_send(self, topic: str, message: Any) -> None:
        """Publish a message.

        Raises:
            HomeAssistantError: the broker is not there.
        """
        if not self.connected:
            raise HomeAssistantError(translation_domain=DOMAIN, translation_key="mqtt_disconnected")
        content = {key: value for key, value in asdict(message).items() if value is not None}
        await mqtt.async_publish(self._hass, topic, json_bytes(content), qos=1)

    async def async_start(self) -> None:
        """Subscribe to the bus for as long as the config entry is loaded."""
        unload = self._entry.async_on_unload
        replies = topics.REPLY.at(client=self.chat.client)
        unload(mqtt.async_subscribe_connection_status(self._hass, self._connection_changed))
        unload(mqtt.async_on_subscribe_done(self._hass, replies, 1, lambda: self.chat.notify(Event.RESUBSCRIBED)))
        # Undecoded, because a payload need not be text.
        for topic in (replies, *topics.STATE_FILTERS):
            unload(await mqtt.async_subscribe(self._hass, topic, self._received, qos=1, encoding=None))
        unload(lambda: self.chat.notify(Event.CLOSED))

    @callback
    def _connection_changed(self, connected: bool) -> None:  # noqa: FBT001 - MQTT's callback type
        if connected:
            # Who left meanwhile can't be told from who stayed until the broker repeats its messages.
            self._present = False
            for node in self._nodes.values():
                node.online = False
        self._hub_changed()

    @callback
    def _received(self, message: mqtt.ReceiveMessage) -> None:
        for topic, handle in self._handlers.items():
            if (levels := topic.levels(message.topic)) is not None:
                self._decode(topic, handle, levels, message)
                return
        _LOGGER.debug("Ignored a message on %s", message.topic)

    @callback
    def _decode(
        self,
        topic: Topic[Any],
        handle: Callable[[Any, dict[str, str]], None],
        levels: dict[str, str],
        message: mqtt.ReceiveMessage,
    ) -> None:
        try:
            # An empty payload clears a retained message.
            content = topic.decode(message.payload, levels) if message.payload else None
        except MalformedPayloadError as error:
            if message.topic not in self._malformed:
                self._malformed.add(message.topic)
                _LOGGER.warning("Dropped a malformed message on %s: %s", message.topic, error)
            return
        self._malformed.discard(message.topic)
        handle(content, levels)

    @callback
    def _changed(self, key: str) -> None:
        async_dispatcher_send(self._hass, self.signal(key))

    @callback
    def _hub_changed(self) -> None:
        if self.online != self._was_online:
            self._was_online = self.online
            _LOGGER.info("Hub %s is %s", self.slug, "online" if self.online else "offline")
        self._changed(HUB)

    @callback
    def _hub_status(self, status: Presence | None, _levels: dict[str, str]) -> None:
        present = status is not None and status.state == "online"
        if present != self._present:
            self._present = present
            self.chat.notify(Event.HUB_ONLINE if present else Event.HUB_OFFLINE)
        self._hub_changed()

    @callback
    def _hub_announcement(self, announcement: HubAnnouncement | None, _levels: dict[str, str]) -> None:
        if announcement and announcement.hub != self.slug:
            _LOGGER.warning("Hub %s has taken the place of %s on the bus", announcement.hub, self.slug)
        self.announcement = announcement
        self._hub_changed()

    @callback
    def _node_status(self, status: Presence | None, levels: dict[str, str]) -> None:
        self._node(levels).online = status is not None and status.state == "online"
        self._changed(node_key(levels["node"]))

    @callback
    def _node_announcement(self, announcement: NodeAnnouncement | None, levels: dict[str, str]) -> None:
        self._node(levels).announcement = announcement
        self._changed(INVENTORY)
        self._changed(node_key(levels["node"]))

    @callback
    def _node_telemetry(self, telemetry: NodeTelemetry | None, levels: dict[str, str]) -> None:
        node = self._node(levels)
        node.telemetry = telemetry
        if telemetry and telemetry.temperature is not None and not node.has_temperature:
            node.has_temperature = True
            self._changed(INVENTORY)
        self._changed(node_key(levels["node"]))

    @callback
    def _node_update(self, update: NodeUpdate | None, levels: dict[str, str]) -> None:
        node = self._node(levels)
        came_or_went = (node.update is None) != (update is None)
        node.update = update
        if came_or_went:
            self._changed(INVENTORY)
        self._changed(node_key(levels["node"]))

    @callback
    def _expert_status(self, status: ExpertStatus | None, levels: dict[str, str]) -> None:
        experts = self._node(levels).experts
        if status:
            experts[levels["expert"]] = status
        else:
            experts.pop(levels["expert"], None)
        self._changed(INVENTORY)
        self._changed(node_key(levels["node"]))

    @callback
    def _node_power(self, power: NodePower | None, levels: dict[str, str]) -> None:
        node = self._node(levels)
        node.power = power
        if power and not node.has_power:
            node.has_power = True
            self._changed(INVENTORY)
        self._changed(node_key(levels["node"]))

    @callback
    def _node_energy(self, energy: NodeEnergy | None, levels: dict[str, str]) -> None:
        node = self._node(levels)
        node.energy = energy
        if energy and not node.has_energy:
            node.has_energy = True
            self._changed(INVENTORY)
        self._changed(node_key(levels["node"]))

    @callback
    def _plug_command(self, command: PlugCommand | None, levels: dict[str, str]) -> None:
        if command:
            self.plug_commands(levels["node"], command)

    @callback
    def _repair_notice(self, notice: RepairNotice | None, levels: dict[str, str]) -> None:
        self._node(levels).repair = notice
        self._changed(REPAIRS)
        self._changed(node_key(levels["node"]))

    @callback
    def _agent_announcement(self, announcement: AgentAnnouncement | None, levels: dict[str, str]) -> None:
        if announcement:
            self.agents[levels["agent"]] = announcement
        else:
            self.agents.pop(levels["agent"], None)
        self._changed(INVENTORY)
        self._changed(agent_key(levels["agent"]))

    @callback
    def _reply(self, reply: Reply | None, _levels: dict[str, str]) -> None:
        if reply:
            self.chat.deliver(reply)

    def _node(self, levels: dict[str, str]) -> Node:
        return self._nodes.setdefault(levels["node"], Node())
