"""Errors of the agents.

AgentError
└── ModelError   the model did not answer; its code tells the client why
"""

from appliance.bus.messages import FailureCode


class AgentError(Exception):
    """Root of the package's errors."""


class ModelError(AgentError):
    """The model did not answer; the message is a sentence for people."""

    def __init__(self, code: FailureCode, message: str) -> None:
        super().__init__(message)
        self.code = code
