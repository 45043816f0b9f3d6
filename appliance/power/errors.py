"""Errors of waking and recovery.

PowerError
├── NotWokenError     a node is not awake, and why: tell whoever asked, or begin the recovery
└── RungError         one rung of the ladder could not do its part: note it, go on with the next
"""


class PowerError(Exception):
    """Root of the package's errors."""


class NotWokenError(PowerError):
    """A node was not woken; the message says why, and what to do."""


class RungError(PowerError):
    """A rung of the recovery ladder could not do its part; the message is the evidence."""
