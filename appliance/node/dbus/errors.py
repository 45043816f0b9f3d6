"""Errors of the system bus.

SystemBusError
├── NoSystemBusError    there is no bus, or the connection ended: go on without it, it comes back by itself
├── NotAllowedError     polkit or the bus refuses: tell the user which permission is missing
├── NoSuchUnitError     systemd has no such unit: tell the user to install it
└── ServiceCallError    the service answered with another error, or not at all: log it, try later
"""


class SystemBusError(Exception):
    """Root of the package's errors."""


class NoSystemBusError(SystemBusError):
    """There is no system bus, or it is not reachable at this moment."""


class NotAllowedError(SystemBusError):
    """This user may not do that."""


class NoSuchUnitError(SystemBusError):
    """systemd knows no unit of that name."""


class ServiceCallError(SystemBusError):
    """A service did not do what it was asked for."""
