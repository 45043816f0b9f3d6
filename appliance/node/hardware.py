"""What this machine is made of, from the kernel's own files (sysfs and procfs)."""

import platform
import socket
from pathlib import Path

import psutil

from appliance.bus.messages import Hardware

_PCI_DISPLAY_CLASS = "0x03"
"""First byte of the PCI class of display controllers (PCI Code and ID Assignment Specification)."""


def read_hardware(sys_folder: Path = Path("/sys"), proc_folder: Path = Path("/proc")) -> Hardware:
    """Describe the machine; cores are physical ones where the kernel tells them apart."""
    return Hardware(
        architecture=platform.machine(),
        cpu=_cpu_model(proc_folder / "cpuinfo") or platform.machine(),
        cores=psutil.cpu_count(logical=False) or psutil.cpu_count() or 1,
        memory_bytes=psutil.virtual_memory().total,
        gpus=_gpus(sys_folder / "bus/pci/devices"),
    )


def read_macs(sys_folder: Path = Path("/sys")) -> tuple[str, ...]:
    """Return the hardware addresses of physical network interfaces, which a magic packet may wake."""
    physical = {path.parent.name for path in (sys_folder / "class/net").glob("*/device")}
    addresses = psutil.net_if_addrs()
    return tuple(
        address.address.lower()
        for name in sorted(physical)
        for address in addresses.get(name, ())
        if address.family == socket.AF_PACKET and len(address.address) == 17
    )


def _cpu_model(cpuinfo: Path) -> str | None:
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)


def _gpus(devices: Path) -> tuple[str, ...]:
    found = []
    for device in sorted(devices.glob("*")):
        try:
            if (device / "class").read_text(encoding="ascii").startswith(_PCI_DISPLAY_CLASS):
                ids = [(device / name).read_text(encoding="ascii").strip() for name in ("vendor", "device")]
                found.append(":".join(part.removeprefix("0x") for part in ids))
        except OSError:
            continue
    return tuple(found)
