"""A node's door over real HTTP, and a hub that knocks."""

import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from appliance.pairing.claim import Claim, Claimant
from appliance.pairing.door import Door
from appliance.pairing.door_server import DoorServer, open_door
from appliance.pairing.hub_ledger import HubLedger
from appliance.pairing.node_store import NodeStore
from appliance.pairing.wire import State
from appliance.security.ca.authority import Authority
from appliance.security.node_accounts import NodeAccounts
from tests.unit.pairing.offices import offices

NODE = "attic"


def encoded(data: bytes) -> str:
    """Write bytes as they stand in JSON."""
    return base64.urlsafe_b64encode(data).decode()


def decoded(text: str) -> bytes:
    """Read bytes as they stand in JSON."""
    return base64.urlsafe_b64decode(text)


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Node:
    """A node whose door is open."""

    door: Door
    port: int
    state: Path
    socket: Path
    clock: Clock

    @property
    def code(self) -> str:
        return self.door.code.replace(" ", "")

    @property
    def door_state(self) -> str:
        return self.door.state

    @property
    def wrong_code(self) -> str:
        return f"{(int(self.code) + 1) % 10**8:08}"

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"


class Hub:
    """A hub with its own book, CA and accounts."""

    def __init__(self, folder: Path, http: aiohttp.ClientSession, name: str = "house") -> None:
        made = offices(folder)
        assert isinstance(made.authority, Authority)
        assert isinstance(made.accounts, NodeAccounts)
        self.folder, self.authority, self.accounts = folder, made.authority, made.accounts
        self.ledger = HubLedger(folder / "nodes", offices=made, certificate_days=365)
        self.claimant = Claimant(
            hub=name, ledger=self.ledger, http=http, broker_url=lambda address: f"mqtts://{address}:8883"
        )

    async def claim(self, there: Node, code: str | None = None, **changes: Any) -> Any:
        known = {"node": NODE, "host": "127.0.0.1", "port": there.port, "code": code or there.code}
        return await self.claimant.claim(Claim(**{**known, **changes}))


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


type OpenNode = Callable[..., Awaitable[Node]]


@pytest.fixture
async def open_node(tmp_path: Path) -> AsyncIterator[OpenNode]:
    """Open the door of a node whose state is in a folder of this name."""
    async with AsyncExitStack() as stack:

        async def opened(folder: str = "node", name: str = NODE) -> Node:
            clock, state = Clock(), tmp_path / folder
            door = Door(name=name, roles=("expert",), store=NodeStore(state), code_lifetime=600, clock=clock)

            def told() -> State:
                return State(
                    node=door.identity, title="Attic", model="PC", rouse="1", roles=("expert",), state=door.state
                )

            server = DoorServer(door, state=told, first_boot=lambda: {"state": "none"})
            socket = tmp_path / f"{folder}.sock"
            port = await stack.enter_async_context(open_door(server, port=0, socket=socket))
            return Node(door, port, state, socket, clock)

        yield opened


@pytest.fixture
async def node(open_node: OpenNode) -> Node:
    return await open_node()


@pytest.fixture
async def hub(tmp_path: Path, http: aiohttp.ClientSession) -> Hub:
    return Hub(tmp_path / "hub", http)
