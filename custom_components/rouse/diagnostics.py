"""What a bug report needs to know, without secrets and addresses."""

from dataclasses import asdict
from typing import Any

from homeassistant.components.diagnostics import async_redact_data
from homeassistant.const import CONF_PROMPT
from homeassistant.core import HomeAssistant
from homeassistant.helpers.device_registry import DeviceEntry

from .devices import node_identifier
from .hub import Hub, Node, RouseConfigEntry

REDACTED = {CONF_PROMPT, "error"}
"""The prompt is private, and an error may quote paths or addresses."""


async def async_get_config_entry_diagnostics(
    hass: HomeAssistant,  # noqa: ARG001 - Home Assistant's signature
    entry: RouseConfigEntry,
) -> dict[str, Any]:
    """Return the diagnostics of a hub."""
    hub = entry.runtime_data
    return {
        "options": async_redact_data(dict(entry.options), REDACTED),
        "hub": _hub(hub),
        "agents": [asdict(agent) for agent in hub.agents.values()],
        "nodes": {name: _node(node) for name, node, _ in hub.nodes()},
    }


async def async_get_device_diagnostics(
    hass: HomeAssistant,  # noqa: ARG001 - Home Assistant's signature
    entry: RouseConfigEntry,
    device: DeviceEntry,
) -> dict[str, Any]:
    """Return the diagnostics of a node, or of the hub itself."""
    hub = entry.runtime_data
    for name, node, _ in hub.nodes():
        if node_identifier(hub, name) in device.identifiers:
            return {"node": _node(node)}
    return {"hub": _hub(hub)}


def _hub(hub: Hub) -> dict[str, Any]:
    return {
        "slug": hub.slug,
        "announcement": hub.announcement and asdict(hub.announcement),
        "connected": hub.connected,
        "online": hub.online,
        "pending_requests": hub.chat.pending,
    }


def _node(node: Node) -> dict[str, Any]:
    return async_redact_data(asdict(node), REDACTED)
