"""A node and a hub as processes, without multicast DNS, that die where a test wants."""

import asyncio
from multiprocessing.connection import Connection
from pathlib import Path

import aiohttp

from appliance.pairing.claim import Claim, Claimant
from appliance.pairing.door import Door
from appliance.pairing.door_server import DoorServer, open_door
from appliance.pairing.errors import PairingError
from appliance.pairing.exchange import Exchange
from appliance.pairing.hub_ledger import HubLedger
from appliance.pairing.node_store import NodeStore
from appliance.pairing.wire import State
from appliance.security.paired import read_pairing
from tests.killing import DISK_STEPS, die_at
from tests.unit.pairing.offices import offices

NODE = "attic"
STEPS = (*DISK_STEPS, *((Exchange, name) for name in ("meet", "proves", "seal", "open")))
"""Where both may die: at the disk, and at each turn of the exchange."""


def node(say: Connection, state: Path, kill_at: int) -> None:
    """Recover, and when the node is not paired, keep the door until it is."""
    die_at(kill_at, STEPS)
    store = NodeStore(state)
    store.recover()
    if read_pairing(state) is not None:
        say.send("paired")
        return
    asyncio.run(_keep_door(say, store, state))


async def _keep_door(say: Connection, store: NodeStore, folder: Path) -> None:
    door = Door(name=NODE, roles=("expert",), store=store, code_lifetime=600)

    def state() -> State:
        return State(node=door.identity, title="", model="", rouse="", roles=("expert",), state=door.state)

    server = DoorServer(door, state=state, first_boot=dict)
    async with open_door(server, port=0, socket=folder / "node.sock") as port:
        say.send((port, door.code.replace(" ", "")))
        async with asyncio.timeout(60):
            await door.paired.wait()
        await asyncio.sleep(0.2)


def hub(say: Connection, folder: Path, port: int, code: str, kill_at: int) -> None:
    """Recover, and claim the node."""
    die_at(kill_at, STEPS)
    made = offices(folder)
    ledger = HubLedger(folder / "nodes", offices=made, certificate_days=365)
    ledger.recover()
    say.send(asyncio.run(_claim(ledger, port, code)))


async def _claim(ledger: HubLedger, port: int, code: str) -> str:
    async with aiohttp.ClientSession() as http:
        claimant = Claimant(hub="house", ledger=ledger, http=http, broker_url=lambda host: f"mqtts://{host}")
        try:
            await claimant.claim(Claim(NODE, "127.0.0.1", port, code))
        except PairingError as error:
            return type(error).__name__
    return "claimed"
