"""What the board measures: the ACPI power meter, or the management controller by `ipmitool dcmi power reading`.

ACPI power meter: Linux, Documentation/hwmon/acpi_power_meter.rst. DCMI: Data Center Manageability Interface 1.5, 6.6.1.
"""

import asyncio
import contextlib
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from appliance.node.energy.meter import MOST_WATTS, MeterError, MeterUnavailableError, Reading, Source

HWMON = Path("/sys/class/hwmon")
IPMI_SECONDS = 10.0
MOST_OUTPUT_BYTES = 65_536
_POWER = re.compile(rb"Instantaneous power reading:\s+(\d{1,6})\s+Watts")


class Ipmi:
    """The whole machine's power, as its board tells it; the kernel's own meter is asked first."""

    source: Source = "ipmi"

    def __init__(self, hwmon: Path = HWMON, command: Sequence[str] = ("ipmitool", "dcmi", "power", "reading")) -> None:
        """Take the kernel's folder of sensors, and what asks the management controller."""
        self._hwmon = hwmon
        self._command = tuple(command)

    async def read(self) -> Reading:
        """Return the power at this moment."""
        watts = self._from_kernel()
        if watts is None:
            watts = await self._from_controller()
        if watts > MOST_WATTS:
            raise MeterError(f"the board says {watts:.0f} W, which can't be")
        return Reading("ipmi", watts)

    def forget(self) -> None:
        """Do nothing: each reading stands alone."""

    def _from_kernel(self) -> float | None:
        for sensor in sorted(self._hwmon.glob("hwmon*")):
            with contextlib.suppress(OSError, ValueError):
                if (sensor / "name").read_text(encoding="ascii").strip() == "power_meter":
                    return int((sensor / "power1_average").read_text(encoding="ascii")) / 1e6
        return None

    async def _from_controller(self) -> float:
        if shutil.which(self._command[0]) is None:
            raise MeterUnavailableError("this machine has no ACPI power meter, and ipmitool is not installed")
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
        except OSError as error:
            raise MeterUnavailableError(f"ipmitool can't be started: {error.strerror}") from error
        try:
            async with asyncio.timeout(IPMI_SECONDS):
                output = await _up_to_the_end(process)
                code = await process.wait()
        except TimeoutError as error:
            raise MeterError(f"ipmitool did not answer within {IPMI_SECONDS:g} s") from error
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
            await process.communicate()
        found = _POWER.search(output)
        if code != 0 or found is None:
            raise MeterUnavailableError("ipmitool gives no power reading: the board has none, or may not be asked")
        return float(found[1])


async def _up_to_the_end(process: asyncio.subprocess.Process) -> bytes:
    assert process.stdout is not None  # noqa: S101 - asked for above
    try:
        await process.stdout.readexactly(MOST_OUTPUT_BYTES)
    except asyncio.IncompleteReadError as whole:
        return whole.partial
    raise MeterUnavailableError(f"ipmitool says more than {MOST_OUTPUT_BYTES} bytes, which is no power reading")
