"""The clock: whether something sets it, and how far it is from the machine that asks."""

from collections.abc import Iterator
from dataclasses import replace

from appliance.preflight.dump import Dump, measure, number
from appliance.preflight.result import ROLES, Result
from appliance.preflight.wanted import Wanted

_UNSYNCHRONISED = 0x0040
"""STA_UNSYNC of adjtimex(2)."""
_TIMESYNCD = "systemd-timesyncd"
"""It makes a file as soon as it has set the clock."""
_KEEPERS = {
    "systemd-timesyn": _TIMESYNCD,
    "systemd-timesyncd.service": _TIMESYNCD,
    "chronyd": "chrony",
    "chrony.service": "chrony",
    "ntpd": "ntpd",
    "ptp4l": "ptp4l",
}
"""What sets the clock, by names of processes, which the kernel cuts after 15 letters, and of units."""
TOLERABLE, FATAL = 2.0, 30.0
"""Seconds. Requests on the bus carry a deadline, and certificates a time."""


def check_clock(dump: Dump, _wanted: Wanted) -> Iterator[Result]:
    """Check whether the clock is set from outside."""
    running = {*(dump.command("processes") or "").split("\n"), *(dump.command("units") or "").split()}
    keeper = next((name for found, name in _KEEPERS.items() if found in running), None)
    by = f", by {keeper}" if keeper is not None else ""
    status = _status(dump)
    needed = "a clock that the network sets: requests carry a deadline and certificates a time"
    result = Result("clock.synchronised", "Clock", "ok", f"synchronised{by}", needed)
    if dump.fact("timesync") is not None or (status is not None and not status & _UNSYNCHRONISED):
        yield result
    elif status is None and keeper != _TIMESYNCD:
        yield replace(result, verdict="unknown", found=f"the kernel could not be asked{by}")
    else:
        remedy = "Install and enable systemd-timesyncd, and let it reach a time server (UDP port 123)."
        yield replace(result, verdict="warn", found=f"not synchronised{by or ', nothing sets it'}", remedy=remedy)


def _status(dump: Dump) -> int | None:
    told = dump.json("probe").get("clock")
    return number(told.get("status")) if isinstance(told, dict) else None


def skew(told: float, earliest: float, latest: float) -> Result:
    """Judge a machine's time, which it told at some moment between two of our own.

    All in seconds since 1970.
    """
    title, name = "Clock difference", "clock.skew"
    needed = f"less than {TOLERABLE:.0f} s from the machine that asks"
    low, high = told - latest, told - earliest
    least = 0.0 if low <= 0 <= high else min(abs(low), abs(high))
    width = latest - earliest
    if least > TOLERABLE:
        found = f"{least:.0f} s {'ahead' if low > 0 else 'behind'}, or {width:.1f} s more"
        remedy = "Set the clock; see whether both machines are synchronised."
        if least > FATAL:
            return Result(name, title, "bad", found, needed, remedy, unfit=ROLES)
        return Result(name, title, "warn", found, needed, remedy, limits=ROLES)
    if width > 2 * TOLERABLE:
        return Result(name, title, "unknown", f"less than {max(abs(low), abs(high)):.0f} s: it answers slowly", needed)
    return Result(name, title, "ok", f"less than {max(abs(low), abs(high)):.1f} s", needed)


def told_time(dump: Dump) -> float | None:
    """Return the time that the machine told first, in seconds since 1970."""
    text = (dump.command("date") or "").replace("%N", "0")
    try:
        return measure(float(text)) if len(text) < 40 else None
    except ValueError:
        return None
