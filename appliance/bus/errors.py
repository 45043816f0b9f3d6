"""Errors of the bus.

BusError
├── MalformedMessageError   a received payload does not fit its topic: drop it, log it once
├── BusUnavailableError     the broker was not reachable in time: try again later
└── BusConfigurationError   the settings can't work: tell the user and stop
"""


class BusError(Exception):
    """Root of the package's errors."""


class MalformedMessageError(BusError):
    """A received payload does not fit its topic's model."""

    def __init__(self, topic: str, reason: str) -> None:
        """Say which topic and what does not fit."""
        super().__init__(f"{topic}: {reason}")
        self.topic = topic
        self.reason = reason


class BusUnavailableError(BusError):
    """The broker was not reachable in time."""


class BusConfigurationError(BusError):
    """The settings of the broker can't work."""
