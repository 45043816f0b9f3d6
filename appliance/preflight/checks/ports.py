"""Ports that the settings want, and programs that might be in the way."""

import re
from collections.abc import Iterator
from dataclasses import replace

from appliance.preflight.dump import Dump
from appliance.preflight.result import ROLES, Result, listing
from appliance.preflight.wanted import Wanted, WantedPort

_MOSQUITTO = "mosquitto"
_LISTENING = "0A"
"""TCP_LISTEN of the kernel's net/tcp_states.h."""
_RIVALS = {
    "mosquitto": "another MQTT broker: set broker.url to it, or stop it",
    "amqtt": "another MQTT broker: set broker.url to it, or stop it",
    "ollama": "takes memory for models of its own; it can be an expert by gateway.externals",
    "llama-server": "takes memory for models of its own; it can be an expert by gateway.externals",
    "vllm": "takes memory for models of its own; it can be an expert by gateway.externals",
    "frigate": "watches cameras already: leave the role vision away",
    "tlp": "saves power by its own rules, and may switch Wake-on-LAN off",
}


_UNRIVALLED = "memory, ports and cameras for itself"


def read_listeners(dump: Dump) -> dict[int, str]:
    """Return the TCP ports that something listens on, and what it is, where root told."""
    found: dict[int, str] = {}
    for path in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in (dump.file(path) or "").split("\n"):
            match = re.match(r"\s*\d+: [0-9A-F]{8,32}:([0-9A-F]{4}) [0-9A-F]{8,32}:[0-9A-F]{4} ([0-9A-F]{2}) ", line)
            if match is not None and match[2] == _LISTENING:
                found[int(match[1], 16)] = ""
    for line in (dump.command("listeners") or "").split("\n"):
        match = re.search(r":([0-9]{1,5})\s+\S+\s*(?:users:\(\(\"([^\"]{1,40})\")?", line)
        if match is not None and match[2] is not None:
            found[int(match[1])] = match[2]
    return found


def running_units(dump: Dump) -> tuple[str, ...]:
    """Return the services that systemd runs, without `.service`."""
    return tuple(unit.removesuffix(".service") for unit in (dump.command("units") or "").split())


def check_ports(dump: Dump, wanted: Wanted) -> Iterator[Result]:
    """Check that the ports are free, and look for rivals."""
    known = dump.file("/proc/net/tcp") is not None or dump.file("/proc/net/tcp6") is not None
    listeners = read_listeners(dump)
    own = tuple(unit for unit in running_units(dump) if unit.startswith("rouse-"))
    broker = wanted.own_mosquitto and _MOSQUITTO in running_units(dump)
    taken = [port for port in wanted.ports if port.port in listeners]
    free = [str(port.port) for port in wanted.ports if port.port not in listeners]
    if not known:
        yield Result("ports", "Ports", "unknown", "the kernel does not tell who listens")
    elif not taken:
        yield Result("ports", "Ports", "ok", f"free: {listing(free, 8)}", "the ports that the settings name")
    else:
        yield from (_taken(port, listeners[port.port], own, broker=broker) for port in taken)
    yield rivals(dump, listeners, own=(_MOSQUITTO,) if broker else ())


def _taken(port: WantedPort, program: str, own: tuple[str, ...], *, broker: bool) -> Result:
    result = Result(f"ports.{port.port}", f"Port {port.port}", "ok", "", f"this port, for {port.key}", about=port.role)
    # Rouse is a Python program, and its name for the kernel is one or the other.
    if own and (not program or program.startswith(("rouse", "python"))):
        return replace(result, found=f"taken, as it seems by Rouse itself ({listing(own)})")
    if broker and port.key.startswith("broker.") and program in {"", _MOSQUITTO}:
        return replace(result, found="taken by mosquitto, which the deploys make the hub's broker")
    by = f" by {program}" if program else "; root can tell by what"
    remedy = f"Stop that program, or set {port.key} to a free port."
    unfit = (port.role,) if port.role is not None else ROLES
    return replace(result, verdict="bad", found=f"taken{by}", remedy=remedy, unfit=unfit, needs_root=not program)


def rivals(dump: Dump, listeners: dict[int, str], *, own: tuple[str, ...] = ()) -> Result:
    """Look for programs that do the same work, but for those that are the house's own."""
    running = {*(dump.command("processes") or "").split("\n"), *listeners.values(), *running_units(dump)}
    found = [name for name in _RIVALS if name in running and name not in own]
    result = Result("services.rivals", "Other services", "ok", "none that get in the way", _UNRIVALLED)
    if found:
        remedy = "; ".join(f"{name}: {_RIVALS[name]}" for name in found) + "."
        return replace(result, verdict="warn", found=listing(found), remedy=remedy)
    return result
