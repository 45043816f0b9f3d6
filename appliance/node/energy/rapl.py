"""Running average power limit: what the processor packages and the memory draw, without the rest of the machine.

Counters of microjoules that wrap around: Linux, Documentation/power/powercap/powercap.rst. Since CVE-2020-8694 only
root may read them.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from appliance.node.energy.meter import MOST_WATTS, MeterError, MeterUnavailableError, Reading, Source

FOLDER = Path("/sys/class/powercap")


@dataclass(frozen=True, slots=True)
class _Zone:
    path: Path
    range: int
    """The counter begins anew after this value."""

    def energy(self) -> int:
        return int((self.path / "energy_uj").read_text(encoding="ascii"))


class Rapl:
    """The sum of all packages and their memory, or of the whole platform where the processor measures that (psys)."""

    source: Source = "rapl"

    def __init__(self, folder: Path = FOLDER, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Take the kernel's folder and a clock that stands still while the machine sleeps."""
        self._folder = folder
        self._monotonic = monotonic
        self._last: tuple[float, dict[Path, int]] | None = None

    async def read(self) -> Reading:
        """Return the power since the last reading; the first one gives none."""
        zones = self._zones()
        now = self._monotonic()
        try:
            counters = {zone.path: zone.energy() for zone in zones}
        except PermissionError as error:
            raise MeterUnavailableError(
                f"only root may read {error.filename}; let the service's group read it (docs/sleeping.md)"
            ) from error
        except (OSError, ValueError) as error:
            raise MeterError(f"RAPL can't be read: {error}") from error
        last, self._last = self._last, (now, counters)
        if last is None or last[1].keys() != counters.keys() or now <= last[0]:
            raise MeterError("RAPL needs two readings")
        joules = sum((counters[zone.path] - last[1][zone.path]) % (zone.range + 1) for zone in zones) / 1e6
        watts = joules / (now - last[0])
        if watts > MOST_WATTS:
            raise MeterError("RAPL's counters began anew")
        return Reading("rapl", watts)

    def forget(self) -> None:
        """Drop the last reading: the counters may begin anew when the processor was without power."""
        self._last = None

    def _zones(self) -> list[_Zone]:
        named = [(path, _name(path)) for path in sorted(self._folder.glob("intel-rapl:*"))]
        platform = [path for path, name in named if name == "psys"]
        wanted = platform or [path for path, name in named if name.startswith("package") or name == "dram"]
        try:
            zones = [_Zone(path, int((path / "max_energy_range_uj").read_text(encoding="ascii"))) for path in wanted]
        except (OSError, ValueError) as error:
            raise MeterUnavailableError(f"RAPL can't be read: {error}") from error
        if not zones:
            raise MeterUnavailableError("this processor has no RAPL counters, or the kernel does not show them")
        return zones


def _name(zone: Path) -> str:
    try:
        return (zone / "name").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
