"""Nodes that wait to be paired, as multicast DNS shows them (RFC 6762, RFC 6763).

An announcement can be forged by anybody in the network: it is where to look, and no proof of anything.
"""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import psutil
from pydantic import ValidationError
from zeroconf import IPVersion, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from appliance.pairing.wire import State

_log = logging.getLogger(__name__)

SERVICE = "_rouse._tcp.local."
RESOLVE_MILLISECONDS = 3000
MOST_NODES = 256
"""Names that are remembered; a stranger can announce any number."""
_MOST_CHARACTERS = 120


@dataclass(frozen=True, slots=True)
class Found:
    """A node that announces itself."""

    address: str
    port: int
    state: State


class Announcement:
    """This node's announcement, which follows its state."""

    def __init__(self, zeroconf: AsyncZeroconf, *, port: int, addresses: Sequence[str]) -> None:
        """Take the door's port and this machine's addresses."""
        self._zeroconf = zeroconf
        self._port = port
        self._addresses = addresses
        self._told: State | None = None

    async def tell(self, state: State) -> None:
        """Announce the state, if it changed."""
        told = state.model_copy(update={"retry_after": 0})
        if told == self._told:
            return
        info = AsyncServiceInfo(
            SERVICE,
            f"{state.node.name}.{SERVICE}",
            port=self._port,
            properties=_properties(state),
            server=f"rouse-{state.node.fingerprint[:12]}.local.",
            parsed_addresses=list(self._addresses),
        )
        if self._told is None:
            # Two nodes of one name are told apart by their keys.
            await self._zeroconf.async_register_service(info, allow_name_change=True, cooperating_responders=False)
        else:
            await self._zeroconf.async_update_service(info)
        self._told = told


class Browser:
    """What other machines announce."""

    def __init__(self, changed: Callable[[str, Found | None], None]) -> None:
        """Take what is called with an announcement's name and what was found, or None when it went."""
        self._changed = changed
        self._names: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def on_change(self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
        """Take an announcement; zeroconf calls it in the event loop."""
        if state_change is ServiceStateChange.Removed:
            if name in self._names:
                self._names.discard(name)
                self._changed(name, None)
            return
        known = name in self._names or len(self._names) < MOST_NODES
        if not known or len(self._tasks) >= MOST_NODES:
            return
        task = asyncio.create_task(self._resolve(zeroconf, service_type, name), name="resolve a node")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _resolve(self, zeroconf: Zeroconf, service_type: str, name: str) -> None:
        info = AsyncServiceInfo(service_type, name)
        if not await info.async_request(zeroconf, RESOLVE_MILLISECONDS):
            return
        found = _found(info)
        if found is None:
            _log.debug("an announcement is no node's: %r", name[:_MOST_CHARACTERS])
            return
        self._names.add(name)
        self._changed(name, found)

    def cancel(self) -> None:
        """Stop resolving."""
        for task in self._tasks:
            task.cancel()


def own_addresses(chosen: Sequence[str] = ()) -> list[str]:
    """Return this machine's IPv4 addresses that others may reach, or those that the settings chose."""
    if chosen:
        return list(chosen)
    return [
        address.address
        for name, of_interface in sorted(psutil.net_if_addrs().items())
        for address in of_interface
        if address.family == socket.AF_INET and name != "lo"
    ]


@asynccontextmanager
async def multicast(addresses: Sequence[str]) -> AsyncIterator[AsyncZeroconf]:
    """Take part in multicast DNS in the networks of these addresses of this machine, by IPv4."""
    zeroconf = AsyncZeroconf(interfaces=list(addresses), ip_version=IPVersion.V4Only)
    try:
        yield zeroconf
    finally:
        await zeroconf.async_close()


@asynccontextmanager
async def browsing(zeroconf: AsyncZeroconf, browser: Browser) -> AsyncIterator[None]:
    """Look for nodes while the context lasts."""
    looking = AsyncServiceBrowser(zeroconf.zeroconf, SERVICE, handlers=[browser.on_change])
    try:
        yield
    finally:
        browser.cancel()
        await looking.async_cancel()


def _properties(state: State) -> dict[str, str]:
    return {
        "v": str(state.version),
        "node": state.node.name,
        "id": state.node.fingerprint,
        "title": state.title,
        "model": state.model,
        "rouse": state.rouse,
        "roles": ",".join(state.roles),
        "state": state.state,
    }


def _found(info: AsyncServiceInfo) -> Found | None:
    addresses = info.parsed_addresses(IPVersion.V4Only)
    told = {key: value or "" for key, value in info.decoded_properties.items()}
    try:
        state = State.model_validate(
            {
                "version": int(told.get("v", "0")),
                "node": {"name": told.get("node", ""), "fingerprint": told.get("id", "")},
                "title": told.get("title", "")[:_MOST_CHARACTERS],
                "model": told.get("model", "")[:_MOST_CHARACTERS],
                "rouse": told.get("rouse", "")[:_MOST_CHARACTERS],
                "roles": [role for role in told.get("roles", "").split(",") if role][:8],
                "state": told.get("state", ""),
            }
        )
    except (ValidationError, ValueError):
        return None
    return Found(addresses[0], info.port, state) if addresses and info.port else None
