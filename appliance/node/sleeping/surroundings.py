"""What the rest of the machine has to say about its sleep."""

import os
from dataclasses import dataclass

from appliance.node.dbus.logind import Inhibitor, Logind, Method, Session

_FORBIDS: dict[Method, frozenset[str]] = {
    "suspend": frozenset({"sleep", "idle"}),
    "poweroff": frozenset({"shutdown", "idle"}),
}
"""A program that shows a film locks `idle`: it does not want the machine to sleep by itself."""

_POLKIT: dict[Method, str] = {
    "suspend": "org.freedesktop.login1.suspend",
    "poweroff": "org.freedesktop.login1.power-off",
}
_VERB: dict[Method, str] = {"suspend": "suspend this machine", "poweroff": "power this machine off"}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Who is logged in, who forbids sleep, and what logind says to it."""

    sessions: tuple[str, ...] = ()
    inhibitors: tuple[str, ...] = ()
    obstacle: str | None = None
    """Why this machine can't be put down at all, in one sentence."""


async def look_around(logind: Logind, method: Method) -> Surroundings:
    """Ask logind. Raises SystemBusError."""
    return Surroundings(
        sessions=tuple(_person(session) for session in await logind.sessions() if _is_person(session)),
        inhibitors=tuple(_sentence(found) for found in await logind.inhibitors() if _forbids(found, method)),
        obstacle=obstacle(method, await logind.can(method)),
    )


def obstacle(method: Method, answer: str) -> str | None:
    """Say what logind's answer to `CanSuspend` or `CanPowerOff` means, where it is not yes."""
    if answer == "yes":
        return None
    if answer == "na":
        return f"logind can't {_VERB[method]}: the kernel, the firmware or its settings do not allow it"
    return not_allowed(method)


def not_allowed(method: Method) -> str:
    """Say which permission is missing."""
    return f"the service's user may not {_VERB[method]}: polkit refuses {_POLKIT[method]}, see docs/sleeping.md"


def _is_person(session: Session) -> bool:
    return session.kind.startswith("user") and session.state != "closing"


def _person(session: Session) -> str:
    return f"{session.user} ({session.seat or 'remote'})"


def _forbids(inhibitor: Inhibitor, method: Method) -> bool:
    ours = inhibitor.pid == os.getpid()
    return not ours and inhibitor.mode != "delay" and bool(inhibitor.what & _FORBIDS[method])


def _sentence(inhibitor: Inhibitor) -> str:
    return f"{inhibitor.who} (process {inhibitor.pid}) forbids it: {inhibitor.why}"[:500]
