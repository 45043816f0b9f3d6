"""Names and defaults of the Rouse integration."""

from typing import Final

DOMAIN: Final = "rouse"

CONF_HUB: Final = "hub"
"""The hub's name on the bus."""

DEFAULT_TIMEOUT: Final = 60
"""Seconds to wait for an answer."""
MIN_TIMEOUT: Final = 5
MAX_TIMEOUT: Final = 600

DISCOVERY_TIMEOUT: Final = 5.0
"""Seconds to wait for the hub's retained announcement in the config flow."""

MAX_TOOL_ITERATIONS: Final = 10
"""Turns of one question in which the model may call tools."""
