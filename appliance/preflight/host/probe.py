"""Asks the kernel what no file tells: the state of the clock, the cards' Wake-on-LAN, and the way to the hub.

It is sent to other machines as text and run by their Python 3.6 or newer, with arguments HOST and PORT, either of which
may be empty; so it imports nothing of ours. It prints one JSON object.
"""

import ctypes
import fcntl
import json
import socket
import struct
import sys
import time
from pathlib import Path

SIOCETHTOOL = 0x8946
ETHTOOL_GWOL = 0x05
CONNECT_SECONDS = 3.0
CONNECTS = 3
MOST_INTERFACES = 64


def clock() -> "dict[str, int] | None":
    """Return what adjtimex(2) says, which changes nothing when no mode is set; None where that is forbidden."""
    timex = (ctypes.c_long * 64)()
    state = ctypes.CDLL(None).adjtimex(ctypes.byref(timex))
    if state < 0:
        return None
    # struct timex: modes (padded), offset, freq, maxerror, esterror, status.
    status = struct.unpack_from("i", timex, 5 * ctypes.sizeof(ctypes.c_long))[0]
    return {"state": state, "maxerror": timex[3], "status": status}


def wake_on_lan(interface: str) -> "dict[str, int | None]":
    """Return the modes that a card knows and those that are set, or the name of the error."""
    info = ctypes.create_string_buffer(struct.pack("III6s", ETHTOOL_GWOL, 0, 0, b""))
    request = struct.pack("16sP16x", interface.encode(), ctypes.addressof(info))
    any_socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        fcntl.ioctl(any_socket, SIOCETHTOOL, request)
    except OSError as error:
        return {"error": error.errno}
    finally:
        any_socket.close()
    _, supported, armed, _ = struct.unpack("III6s", info.raw[:18])
    return {"supported": supported, "armed": armed}


def peer(host: str, port: int) -> "dict[str, object]":
    """Connect to the hub, and say how long that takes at best."""
    took = []
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        for _ in range(CONNECTS):
            began = time.time()
            socket.create_connection((host, port), timeout=CONNECT_SECONDS).close()
            took.append(time.time() - began)
    except (OSError, UnicodeError) as error:
        return {"error": str(error)[:200]}
    return {"addresses": sorted({str(found[4][0]) for found in addresses}), "seconds": min(took)}


def main(host: str, port: str) -> None:
    """Print what was found; a part that fails is missing."""
    told: dict[str, object] = {"python": ".".join(str(part) for part in sys.version_info[:3])}
    try:
        told["clock"] = clock()
    except (OSError, AttributeError, ValueError):
        told["clock"] = None
    devices = sorted(Path("/sys/class/net").glob("*/device"))[:MOST_INTERFACES]
    told["wake_on_lan"] = {device.parent.name: wake_on_lan(device.parent.name) for device in devices}
    if host and port:
        told["peer"] = peer(host, int(port))
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
