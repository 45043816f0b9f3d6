"""Whether a magic packet would wake this machine: read only, what arms the cards is the deploys' business.

The kernel tells a card's Wake-on-LAN mode to CAP_NET_ADMIN only (ETHTOOL_GWOL, because it may hold a password;
linux/ethtool.h). For everybody else, drivers keep `power/wakeup` of the card's device in step with it
(Documentation/ABI/testing/sysfs-devices-power).
"""

import ctypes
import fcntl
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

SIOCETHTOOL = 0x8946
ETHTOOL_GWOL = 0x05
WAKE_MAGIC = 1 << 5
WAKE_MAGICSECURE = 1 << 6
INTERFACE_NAME_BYTES = 16


class _WakeInfo(ctypes.Structure):
    """struct ethtool_wolinfo."""

    _fields_ = (
        ("cmd", ctypes.c_uint32),
        ("supported", ctypes.c_uint32),
        ("wolopts", ctypes.c_uint32),
        ("sopass", ctypes.c_uint8 * 6),
    )


class _Request(ctypes.Structure):
    """struct ifreq, as far as SIOCETHTOOL needs it."""

    _fields_ = (
        ("name", ctypes.c_char * INTERFACE_NAME_BYTES),
        ("data", ctypes.c_void_p),
        ("padding", ctypes.c_uint8 * 16),
    )


@dataclass(frozen=True, slots=True)
class WakeOnLan:
    """Whether an interface wakes the machine."""

    interface: str
    state: Literal["armed", "disarmed", "unknown"]


def read_wake_on_lan(sys_folder: Path = Path("/sys")) -> tuple[WakeOnLan, ...]:
    """Return the state of each physical interface with a cable, as far as it can be read."""
    found = []
    for device in sorted((sys_folder / "class/net").glob("*/device")):
        interface = device.parent
        if not (interface / "wireless").exists():
            found.append(WakeOnLan(interface.name, _asked(interface.name) or _told(device)))
    return tuple(found)


def _asked(interface: str) -> Literal["armed", "disarmed"] | None:
    """Ask the driver; None if this process may not, or the driver knows nothing of it."""
    info = _WakeInfo(cmd=ETHTOOL_GWOL)
    request = _Request(name=interface.encode(), data=ctypes.addressof(info))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            fcntl.ioctl(any_socket, SIOCETHTOOL, request)
        except OSError:
            return None
    return "armed" if info.wolopts & (WAKE_MAGIC | WAKE_MAGICSECURE) else "disarmed"


def _told(device: Path) -> Literal["armed", "disarmed", "unknown"]:
    try:
        wakeup = (device / "power/wakeup").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return "unknown"
    return "armed" if wakeup == "enabled" else "disarmed" if wakeup == "disabled" else "unknown"


def nothing_wakes(interfaces: tuple[WakeOnLan, ...]) -> str | None:
    """Say in one sentence why no magic packet would wake this machine; None if one would."""
    if any(found.state == "armed" for found in interfaces):
        return None
    remedy = "arm one with `ethtool -s INTERFACE wol g`, or set power.sleep_without_wake"
    if not interfaces:
        return f"nothing could wake it: it has no network card with a cable; {remedy}"
    named = ", ".join(f"{found.interface} {found.state}" for found in interfaces)
    return f"nothing could wake it: Wake-on-LAN is not armed ({named}); {remedy}"
