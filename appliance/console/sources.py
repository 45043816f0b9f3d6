"""Where the screen has it from: the node's and the hub's own ports, the pairing socket, and the kernel.

Nothing here fails: what does not answer is not there. Nothing here is trusted either: text from elsewhere may hold
escape sequences, which a terminal would obey.
"""

import asyncio
import json
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from appliance import __version__
from appliance.console.snapshot import Door, Machine, Snapshot
from appliance.settings.model import Settings

ANSWER_SECONDS = 2.0
LONGEST_BODY = 256 * 1024
LONGEST_TEXT = 200
SHOWN_DIGITS = 16
_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what a wildcard is reached by on this machine
_SENSORS = ("coretemp", "k10temp", "cpu_thermal")


@dataclass(frozen=True, slots=True)
class Sources:
    """Reads everything."""

    settings: Settings
    name: str
    first_boot: Path
    """What `rouse first-boot apply` left."""
    preflight: Callable[[], Mapping[str, Any] | None] = lambda: None
    """Reads what the last check of the machine came to."""
    errors: tuple[str, ...] = ()
    """What went wrong before, such as settings that can't be read."""

    async def read(self) -> Snapshot:
        """Ask everybody at the same time."""
        health, gateway, door = await asyncio.gather(self._health(), self._gateway(), self._door())
        experts = _mapping(health.get("experts"))
        broker = _mapping(health.get("broker"))
        return Snapshot(
            name=clean(health.get("node") or self.name),
            version=__version__,
            roles=self.settings.node.roles,
            addresses=_addresses(),
            door=door,
            node=clean(health.get("status") or ("waits to be paired" if door is not None else "not running")),
            broker=_broker(broker) if broker else None,
            hub=clean(gateway) if "hub" in self.settings.node.roles else None,
            experts=tuple((clean(name), clean(state)) for name, state in sorted(experts.items())),
            power=_state(health.get("power")),
            update=_state(health.get("update")),
            preflight=self._preflight(),
            errors=(*self.errors, *self._first_boot_errors()),
            machine=read_machine(),
        )

    async def renew_code(self) -> None:
        """Have another pairing code, if the node shows one."""
        await _ask("http://node/code", socket=self.settings.pairing.socket, method="POST")

    def _preflight(self) -> str | None:
        told = self.preflight()
        return clean(told.get("summary")) if told is not None else None

    async def _health(self) -> Mapping[str, Any]:
        node = self.settings.node
        return await _ask(f"http://{_reached(node.status_host)}:{node.status_port}/health") or {}

    async def _gateway(self) -> str:
        if "hub" not in self.settings.node.roles:
            return ""
        gateway = self.settings.gateway
        told = await _ask(f"http://{_reached(gateway.host)}:{gateway.port}/health")
        return "not running" if told is None else str(told.get("status", "answers"))

    async def _door(self) -> Door | None:
        told = await _ask("http://node/code", socket=self.settings.pairing.socket)
        if not told:
            return None
        code = told.get("code")
        return Door(
            state=clean(told.get("state")),
            code=clean(code) if code else None,
            key=clean(told.get("key") or "")[:SHOWN_DIGITS] or None,
            expires_in=_number(told.get("expires_in")),
            locked_for=_number(told.get("locked_for")),
        )

    def _first_boot_errors(self) -> Sequence[str]:
        try:
            told = _mapping(json.loads(self.first_boot.read_bytes()))
        except (OSError, ValueError, RecursionError):
            return ()
        problems = told.get("problems")
        listed = problems if isinstance(problems, list) else []
        return [clean(f"{_mapping(one).get('where')}: {_mapping(one).get('text')}") for one in listed]


def clean(text: object) -> str:
    """Return text in one short line that a terminal only shows."""
    return "".join(c if c.isprintable() else "?" for c in str(text)[:LONGEST_TEXT])


def read_machine() -> Machine:
    """Measure the machine."""
    sensors = psutil.sensors_temperatures()
    hottest = [reading.current for name in _SENSORS for reading in sensors.get(name, ())]
    return Machine(
        load=os.getloadavg()[0],
        cores=psutil.cpu_count() or 1,
        memory=psutil.virtual_memory().percent / 100,
        temperature=max(hottest, default=None),
    )


def _addresses() -> tuple[str, ...]:
    return tuple(
        f"{address.address} ({clean(name)})"
        for name, of_interface in sorted(psutil.net_if_addrs().items())
        for address in of_interface
        if name != "lo" and address.family in {socket.AF_INET, socket.AF_INET6} and "%" not in address.address
    )


def _broker(told: Mapping[str, Any]) -> str:
    return clean(f"{told.get('address')}: {'connected' if told.get('connected') else 'no connection'}")


def _state(told: object) -> str | None:
    """Return the state of power or update: `state`, and what else there is to say."""
    if told is None:
        return None
    if not isinstance(told, Mapping):
        return clean(told)
    more = [str(told[key]) for key in ("reason", "message", "available") if told.get(key)]
    return clean(f"{told.get('state')}" + (f" ({', '.join(more)})" if more else ""))


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _reached(host: str) -> str:
    host = _WILDCARDS.get(host, host)
    return f"[{host}]" if ":" in host else host


async def _ask(url: str, *, socket: Path | None = None, method: str = "GET") -> Mapping[str, Any] | None:
    """Return the JSON object that is answered, or None."""
    try:
        async with (
            asyncio.timeout(ANSWER_SECONDS),
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket)) if socket is not None else None) as http,
            http.request(method, url, allow_redirects=False) as response,
        ):
            body = b""
            async for piece in response.content.iter_any():
                body += piece
                if len(body) > LONGEST_BODY:
                    return None
        return _mapping(json.loads(body))
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError, RecursionError):
        return None
