"""Errors of pairing.

PairingError
├── RefusedError         the node says no, and why: the code, the state of its door
├── UnreachableError     the node does not answer: look at the network, try again
├── ImpostorError        who answers does not know the code: nobody may be trusted
├── UnconfirmedError     credentials were handed over, but the node's last word is missing: wait for the node
└── StorageError         this machine can't keep what it was given: look at the disk
"""


class PairingError(Exception):
    """Root of the package's errors."""


class RefusedError(PairingError):
    """The other side says no."""

    def __init__(
        self, reason: str, message: str, *, attempts_left: int | None = None, retry_after: float | None = None
    ) -> None:
        """Take the reason as a word for programs, and as a sentence for people."""
        super().__init__(message)
        self.reason = reason
        self.attempts_left = attempts_left
        self.retry_after = retry_after


class UnreachableError(PairingError):
    """The node does not answer."""


class ImpostorError(PairingError):
    """Who answers does not know the code, or changed a message."""


class UnconfirmedError(PairingError):
    """The node may or may not have stored what it was given."""


class StorageError(PairingError):
    """The disk does not take what must be kept."""
