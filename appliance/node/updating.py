"""What the daemon lends to whoever updates the machine's image; that is made elsewhere, and passed in."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from appliance.bus.client import Bus
from appliance.node.dbus.logind import Logind
from appliance.node.dbus.systemd import Systemd
from appliance.node.sleeping.activity import ActivityWatch
from appliance.node.status import WatchedExpert


class Updates(Protocol):
    """Updates of the machine's image."""

    @property
    def running(self) -> bool:
        """Whether the machine must stay awake for an update."""

    async def run(self) -> None:
        """Work until cancelled."""


@dataclass(frozen=True, slots=True)
class NodeParts:
    """Parts of the daemon, before they are entered."""

    node: str
    bus: Bus
    systemd: Systemd
    logind: Logind
    activity: ActivityWatch
    experts: Sequence[WatchedExpert]


type MakeUpdates = Callable[[NodeParts], Updates | None]


def no_updates(_parts: NodeParts) -> None:
    """Make nothing: this machine's packages are somebody else's business."""
