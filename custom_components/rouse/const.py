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

CONF_HINTS: Final = "hints"
"""What the hub is told, so that it wakes machines ahead of a question."""
HINT_SPEECH: Final = "speech"
HINT_ARRIVAL: Final = "arrival"
DEFAULT_HINTS: Final = [HINT_SPEECH]

SUBENTRY_PLUG: Final = "plug"
"""A node's smart plug."""
CONF_NODE: Final = "node"
CONF_SWITCH: Final = "switch"
CONF_POWER_SENSOR: Final = "power_sensor"

SWITCH_TIMEOUT: Final = 20.0
"""Seconds that a plug may take to say that it is off or on."""
READING_INTERVAL: Final = 60.0
"""Seconds between readings of a plug that does not change."""
