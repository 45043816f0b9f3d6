"""What updates need of the machine: whoever starts the daemon passes it in, as systemd and the experts are its own."""

from dataclasses import dataclass
from typing import Protocol

from appliance.updates.records import Baseline

INSTALL_UNIT = "rouse-update@{}.service"
BACK_UNIT = "rouse-update-back.service"
COMPLETE_UNIT = "boot-complete.target"


@dataclass(frozen=True, slots=True)
class UnitReport:
    """How a unit is."""

    active: str
    """`activating`, `active`, `inactive`, `failed` and others."""
    result: str
    status: str
    """What it last said."""


class Host(Protocol):
    """The machine."""

    async def idle(self) -> float:
        """Return for how many seconds nobody has used its experts; 0 while an answer is generated or waited for."""

    async def start(self, unit: str) -> None:
        """Have systemd start a unit. Raises InstallError."""

    async def unit(self, unit: str) -> UnitReport:
        """Return how a unit is. Raises InstallError."""

    async def boot(self) -> str:
        """Return what tells this boot from others. Raises InstallError."""

    async def restart(self) -> None:
        """Have the machine restarted; returns when that has begun. Raises InstallError."""

    async def baseline(self) -> Baseline:
        """Return what is up."""
