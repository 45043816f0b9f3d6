"""Who watches the experts, and the RPC worker where there is one: as children of the daemon, or as units of systemd."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from appliance.bus.messages import ExpertStatus
from appliance.node.dbus.systemd import WORKER, Systemd
from appliance.node.expert import ExpertProcess
from appliance.node.supervised import Report, SupervisedExpert
from appliance.node.unit import ExpertUnit
from appliance.settings.model import Settings

_WORKER_NAME = "rpc-worker"


@dataclass(frozen=True, slots=True)
class Supervision:
    """Makes them.

    Attributes:
        settings: the effective settings.
        node: this machine's name.
        http: for health checks.
        advertise: turns an expert's own URL into one that others reach.
        key: the experts'.
        systemd: for units.
        environment: for children.
        expert_command: what starts an expert as a child, before its name.
        worker_command: what starts the worker as a child.
    """

    settings: Settings
    node: str
    http: aiohttp.ClientSession
    advertise: Callable[[str], str]
    key: str
    systemd: Systemd
    environment: Mapping[str, str]
    expert_command: Sequence[str]
    worker_command: Sequence[str]

    def experts(self, report: Report) -> list[SupervisedExpert]:
        """Return one for each expert of the settings."""
        return [self._made(name, (*self.expert_command, name), name, report) for name in self.settings.experts]

    def workers(self) -> list[SupervisedExpert]:
        """Return one for the worker, if the settings want it."""
        if not self.settings.rpc_worker.enabled:
            return []
        return [self._made(_WORKER_NAME, self.worker_command, WORKER, _say_nothing)]

    def _made(self, name: str, command: Sequence[str], unit: str, report: Report) -> SupervisedExpert:
        common: dict[str, Any] = {
            "name": name,
            "node": self.node,
            "http": self.http,
            "report": report,
            "advertise": self.advertise,
            "key": self.key,
        }
        if self.settings.node.supervisor == "systemd":
            return ExpertUnit(systemd=self.systemd, unit=unit, **common)
        return ExpertProcess(command=command, environment=self.environment, **common)


async def _say_nothing(_status: ExpertStatus) -> None:
    """A worker is no expert that the gateway could ask; the experts that use it say how it is."""
