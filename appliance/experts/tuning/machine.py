"""What this machine has to compute with, as the kernel says it."""

import os
from pathlib import Path

import psutil


def usable_cores() -> int:
    """Return the number of physical cores, at most as many as this process may use."""
    allowed = len(os.sched_getaffinity(0))
    return min(psutil.cpu_count(logical=False) or allowed, allowed)


def processor() -> dict[str, str]:
    """Return what the kernel says of the first processor."""
    found: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        name, separator, value = line.partition(":")
        if not separator and found:
            break
        found[name.strip()] = value.strip()
    return found
