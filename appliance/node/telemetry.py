"""How this machine is doing."""

import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from appliance.bus.messages import NodeTelemetry
from appliance.node.supervised import ExpertLoad, SupervisedExpert


class Telemetry:
    """The machine and its experts, measured now and then."""

    def __init__(self, disk: Path, experts: Sequence[SupervisedExpert]) -> None:
        """Take a path on the file system whose use is reported, and the experts."""
        self._disk = disk
        self._experts = experts
        self.last: NodeTelemetry | None = None
        """What was measured last."""

    def read(self) -> NodeTelemetry:
        """Measure anew."""
        self.last = read_telemetry(self._disk, sum((expert.load for expert in self._experts), start=ExpertLoad()))
        return self.last


def read_telemetry(disk: Path, load: ExpertLoad) -> NodeTelemetry:
    """Measure the machine; the CPU's share is that since the previous call.

    Args:
        disk: a path on the file system whose use is reported.
        load: what the node's experts are doing.
    """
    return NodeTelemetry(
        cpu=min(1.0, psutil.cpu_percent(interval=None) / 100),
        memory=psutil.virtual_memory().percent / 100,
        disk=psutil.disk_usage(str(_existing(disk))).percent / 100,
        uptime=round(time.clock_gettime(time.CLOCK_BOOTTIME), 1),
        temperature=_hottest(),
        active_requests=load.active,
        queued_requests=load.queued,
        generated_tokens=load.generated_tokens,
    )


def _existing(path: Path) -> Path:
    return next(parent for parent in (path, *path.absolute().parents) if parent.exists())


def _hottest() -> float | None:
    sensors = psutil.sensors_temperatures()
    cpu = [reading.current for name in ("coretemp", "k10temp", "cpu_thermal") for reading in sensors.get(name, ())]
    return max(cpu, default=None)
