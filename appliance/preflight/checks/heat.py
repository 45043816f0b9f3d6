"""Temperature, throttling, and where the power comes from."""

import re
from collections.abc import Iterator
from dataclasses import replace

from appliance.preflight.dump import Dump, number
from appliance.preflight.result import Result
from appliance.preflight.wanted import Wanted

_HOT, _MARGIN = 85.0, 10.0
"""Degrees Celsius; and the distance from a sensor's own limit that is too little for an idle machine."""
_SENSORS = frozenset({"coretemp", "k10temp", "zenpower", "cpu_thermal", "soc_thermal", "x86_pkg_temp", "cpu-thermal"})
_UNDER_VOLTAGE, _THROTTLED = 0x1, 0x4
_HAS_BEEN = 16
"""Raspberry Pi's get_throttled: bits 0 to 3 are now, 16 to 19 since the start."""


def check_heat(dump: Dump, _wanted: Wanted) -> Iterator[Result]:
    """Check temperature and power supply."""
    yield temperature(dump)
    yield throttling(dump)
    yield supply(dump)


def read_temperatures(dump: Dump) -> list[tuple[float, float | None]]:
    """Return temperature and limit of each of the processor's sensors, in degrees Celsius."""
    found = []
    for chip in dump.names("/sys/class/hwmon"):
        folder = f"/sys/class/hwmon/{chip}"
        if dump.line(f"{folder}/name") not in _SENSORS:
            continue
        for name in dump.names(folder):
            match = re.fullmatch(r"(temp[0-9]{1,3})_input", name)
            value = _degrees(dump, f"{folder}/{name}") if match is not None else None
            if match is not None and value is not None:
                found.append((value, _degrees(dump, f"{folder}/{match[1]}_crit")))
    for zone in dump.names("/sys/class/thermal"):
        folder = f"/sys/class/thermal/{zone}"
        value = _degrees(dump, f"{folder}/temp")
        if value is not None and dump.line(f"{folder}/type") in _SENSORS:
            found.append((value, None))
    return found


def _degrees(dump: Dump, path: str) -> float | None:
    value = dump.number(path)
    return value / 1000 if value is not None and -60_000 < value < 200_000 else None


def temperature(dump: Dump) -> Result:
    """Check the processor's temperature."""
    found = read_temperatures(dump)
    result = Result("heat.processor", "Temperature", "ok", "", f"less than {_HOT:.0f} °C while it has nothing to do")
    if not found:
        return replace(result, verdict="unknown", found="no sensor of the processor is readable")
    hottest, limit = max(found, key=lambda pair: pair[0])
    text = f"{hottest:.0f} °C"
    if limit is not None and limit > 0:
        text = f"{text}, limit {limit:.0f} °C"
    if hottest >= _HOT or (limit is not None and 0 < limit <= hottest + _MARGIN):
        remedy = "Clean the fan, renew the thermal paste, or give it air."
        return replace(result, verdict="warn", found=text, remedy=remedy, limits=("expert", "voice", "vision"))
    return replace(result, found=text)


def throttling(dump: Dump) -> Result:
    """Check whether the processor had to slow down since the start."""
    result = Result("heat.throttling", "Throttling", "ok", "none since the start", "a processor at full speed")
    told = dump.line("/sys/devices/platform/soc/soc:firmware/get_throttled")
    if told is not None and re.fullmatch("[0-9a-fA-F]{1,8}", told.removeprefix("0x")):
        bits = int(told, 16)
        bits |= bits >> _HAS_BEEN
        if bits & _UNDER_VOLTAGE:
            remedy = "Use a stronger power supply and a short, thick cable."
            return replace(
                result, verdict="warn", found="too little voltage", remedy=remedy, limits=("expert", "vision")
            )
        if bits & _THROTTLED:
            return replace(result, verdict="warn", found="slowed down by heat", remedy="Give it a fan or a heat sink.")
        return result
    folder = "/sys/devices/system/cpu"
    counts = [
        value
        for cpu in dump.names(folder)
        if (value := dump.number(f"{folder}/{cpu}/thermal_throttle/package_throttle_count")) is not None
    ]
    if not counts:
        return replace(result, verdict="unknown", found="the processor does not count it")
    if max(counts) > 0:
        found = f"slowed down by heat {max(counts)} times since the start"
        return replace(result, verdict="warn", found=found, remedy="Clean the fan, or give it air.")
    return result


def supply(dump: Dump) -> Result:
    """Check whether it runs on a battery."""
    folder = "/sys/class/power_supply"
    names = dump.names(folder)
    own = [name for name in names if dump.line(f"{folder}/{name}/scope") != "Device"]
    mains = [
        dump.line(f"{folder}/{name}/online") for name in own if dump.line(f"{folder}/{name}/type") in {"Mains", "USB"}
    ]
    batteries = [name for name in own if dump.line(f"{folder}/{name}/type") == "Battery"]
    result = Result("power.supply", "Power supply", "ok", "mains", "mains power, when others count on the machine")
    if not batteries:
        return result
    charge = number(dump.line(f"{folder}/{batteries[0]}/capacity"))
    text = f"battery at {charge} %" if charge is not None and 0 <= charge <= 100 else "a battery"
    discharging = dump.line(f"{folder}/{batteries[0]}/status") == "Discharging"
    if discharging or (mains and "1" not in mains):
        remedy = "Plug it in."
        return replace(result, verdict="warn", found=f"on battery: {text}", remedy=remedy, limits=("hub", "expert"))
    return replace(result, found=f"mains; {text}")
