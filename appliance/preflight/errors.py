"""Errors of the preflight.

PreflightError
├── TargetError       what was asked for is no host: write it differently
└── UnreachedError    nothing is known of the machine: look at the network, the machine or its log-in
    ├── HostKeyError  it is not certain that this is the machine: compare its key
    └── DumpError     the machine answers something else than it was asked
"""


class PreflightError(Exception):
    """Root of the package's errors; the text is for the user."""


class TargetError(PreflightError):
    """What was asked for is no host."""


class UnreachedError(PreflightError):
    """Nothing is known of the machine."""


class HostKeyError(UnreachedError):
    """It is not certain that this is the machine."""


class DumpError(UnreachedError):
    """The machine answers something else than it was asked."""
