"""What is asked of a node's power."""

from typing import Literal

from homeassistant.util.ulid import ulid_now

from . import topics
from .hub import Hub
from .messages import PowerCommand


async def async_command(hub: Hub, node: str, action: Literal["sleep", "wake", "recover"], reason: str) -> None:
    """Ask a node to sleep, or the hub to wake or recover it.

    Raises:
        HomeAssistantError: the broker is not there.
    """
    await hub.async_send(topics.power_commands(node), PowerCommand(ulid_now(), action, reason))
