"""Reads the meter at a steady interval, keeps the account, and publishes it."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from prometheus_client import CollectorRegistry, Gauge

from appliance.bus.client import Bus
from appliance.bus.power_messages import NodeEnergy
from appliance.bus.topics import NODE_ENERGY
from appliance.node.clock import Clock, SleepDetector
from appliance.node.energy.meter import Meter, MeterError, MeterUnavailableError, Reading, Source

_log = logging.getLogger(__name__)

type EnergyState = Literal["busy", "idle", "asleep"]

WHOLE_MACHINE: frozenset[Source] = frozenset({"plug", "ipmi"})
"""What measures the whole machine."""


class EnergyAccount(Protocol):
    """Adds up what a node uses and saves; made elsewhere."""

    def add(self, watts: float, seconds: float, state: EnergyState, *, whole: bool = False) -> None:
        """Add the power of some time that has just passed; `whole` says that it was measured on the whole machine."""

    @property
    def used_kwh(self) -> float:
        """What the node has used."""

    @property
    def saved_kwh(self) -> float:
        """What it would have used beyond that if it never slept."""

    @property
    def baseline(self) -> Literal["measured", "settings"]:
        """Where the watts of a machine that never sleeps come from, which `saved_kwh` is counted by."""

    @property
    def since(self) -> float:
        """When counting began; Unix time."""


class EnergyMetrics:
    """The power as a metric."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.watts = Gauge(
            "rouse_node_power_watts",
            "Power that the node draws, by where the number comes from: rapl (processor and memory alone), ipmi, plug "
            "or estimate.",
            ["source"],
            registry=registry,
        )


@dataclass(frozen=True, slots=True)
class EnergyOptions:
    """What the monitor needs besides its collaborators."""

    sources: tuple[Source, ...] = ("plug", "ipmi", "rapl")
    """Meters in order of preference: the whole machine before parts of it. An estimate always comes last."""
    idle_watts: float = 15.0
    """What the machine draws awake and idle, for the estimate."""
    busy_watts: float = 60.0
    """What it draws with all processors in use, for the estimate."""
    asleep_watts: float = 2.0
    """What the machine draws while it sleeps, when nobody measures."""
    interval: float = 30.0
    """Seconds between two readings; RAPL's counters wrap around after some 40 minutes at full load."""


class EnergyMonitor:
    """Uses the first meter that gives readings."""

    def __init__(
        self,
        *,
        node: str,
        bus: Bus,
        meters: Sequence[Meter],
        account: EnergyAccount,
        clock: Clock,
        metrics: EnergyMetrics,
        options: EnergyOptions,
        busy: Callable[[], bool],
    ) -> None:
        """Take the meters in order of preference, and what tells whether an expert is in use."""
        self._node = node
        self._bus = bus
        self._meters = list(meters)
        self._account = account
        self._clock = clock
        self._metrics = metrics
        self._options = options
        self._busy = busy
        self._detector = SleepDetector(clock)
        self._last = clock.monotonic()

    async def run(self) -> None:
        """Read, count and publish until cancelled."""
        while True:
            await self.measure()
            await asyncio.sleep(self._options.interval)

    async def measure(self) -> None:
        """Do it once; what the machine used asleep since the last time is counted before."""
        if slept := self._detector.slept():
            self._account.add(self._options.asleep_watts, slept, "asleep")
            for meter in self._meters:
                meter.forget()
        reading = await self._read()
        if reading is None:
            return
        now = self._clock.monotonic()
        awake, self._last = now - self._last, now
        whole = reading.source in WHOLE_MACHINE
        self._account.add(reading.watts, awake, "busy" if self._busy() else "idle", whole=whole)
        self._metrics.watts.clear()
        self._metrics.watts.labels(reading.source).set(reading.watts)
        energy = NodeEnergy(
            source=reading.source,
            watts=round(reading.watts, 2),
            used_kwh=self._account.used_kwh,
            saved_kwh=self._account.saved_kwh,
            baseline=self._account.baseline,
            since=self._account.since,
        )
        await self._bus.keep(NODE_ENERGY, energy, node=self._node)

    async def _read(self) -> Reading | None:
        for meter in list(self._meters):
            try:
                return await meter.read()
            except MeterUnavailableError as error:
                _log.warning("no power is measured by %s: %s", meter.source, error)
                self._meters.remove(meter)
            except MeterError as error:
                _log.debug("%s: %s", meter.source, error)
        return None
