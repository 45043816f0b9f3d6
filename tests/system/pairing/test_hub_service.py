"""Claims on the bus, through real brokers, to a real door; found without multicast."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from appliance.bus.client import Bus
from appliance.bus.messages import Presence
from appliance.bus.pairing_messages import PairingClaim
from appliance.bus.topics import NODE_STATUS, PAIRED_NODE, PAIRING_CLAIM, PAIRING_OFFER, PAIRING_RESULT
from appliance.pairing.claim import Claimant
from appliance.pairing.discovery import Found
from appliance.pairing.hub_ledger import HubLedger
from appliance.pairing.hub_service import HubPairing
from appliance.pairing.wire import State
from tests.system.client import Inbox
from tests.system.conftest import RunningBroker
from tests.unit.pairing.conftest import NODE, Clock, Node, OpenNode, node, open_node
from tests.unit.pairing.offices import accounts_of, offices

__all__ = ["node", "open_node"]

pytestmark = pytest.mark.broker


@dataclass
class House:
    """The hub's service and a client."""

    service: HubPairing
    client: Bus
    results: Inbox
    offers: Inbox
    members: Inbox
    folder: Path

    async def find(self, there: Node, name: str = "attic._rouse._tcp.local.") -> None:
        """Have the service find a node, as multicast DNS would tell it."""
        async with aiohttp.ClientSession() as http, http.get(there.url("/pairing")) as response:
            state = State.model_validate_json(await response.read())
        await self.service._note(name, Found("127.0.0.1", there.port, state))

    async def claim(self, identifier: str, **values: Any) -> Any:
        known = {"id": identifier, "action": "pair", "deadline": time.time() + 30}
        count = len(self.results.messages) + 1
        await self.client.publish(PAIRING_CLAIM, PairingClaim.model_validate({**known, **values}), node=NODE)
        await self.results.wait_for(count, 30)
        return self.results.messages[-1][0]


@pytest.fixture
async def house(broker: RunningBroker, tmp_path: Path) -> AsyncIterator[House]:
    folder = tmp_path / "hub"
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession())
        ledger = HubLedger(folder / "nodes", offices=offices(folder), certificate_days=365)
        claimant = Claimant(hub="house", ledger=ledger, http=http, broker_url=lambda host: f"mqtt://{host}:1883")
        bus, client = broker.bus("hub"), broker.bus("client", "homeassistant")
        results, offers, members = Inbox(), Inbox(), Inbox()
        client.subscribe(PAIRING_RESULT, results)
        client.subscribe(PAIRING_OFFER, offers)
        client.subscribe(PAIRED_NODE, members)
        service = HubPairing(bus=bus, claimant=claimant, ledger=ledger, addresses=("127.0.0.1",))
        await stack.enter_async_context(bus)
        await stack.enter_async_context(service)
        await stack.enter_async_context(client)
        for one in (bus, client):
            await one.wait_connected(10)
        yield House(service, client, results, offers, members, folder)


async def test_a_node_is_offered_claimed_and_let_go(house: House, node: Node) -> None:
    await house.find(node)
    await house.offers.wait_for(1)
    offer, levels = house.offers.messages[0]
    assert levels == {"node": NODE}
    assert (offer.address, offer.fingerprint) == (f"127.0.0.1:{node.port}", node.door.identity.fingerprint)
    assert (await house.claim("claim-wrong", code=node.wrong_code)).reason == "wrong_code"
    code = node.code
    result = await house.claim("claim-good", code=code)
    assert (result.ok, result.reason) == (True, "paired")
    assert [member.state for member, _ in house.members.messages if member] == ["paired"]
    # Delivered twice, carried out once.
    assert await house.claim("claim-good", code=code) == result
    assert (await house.claim("claim-late", code=code)).reason == "not_possible"
    assert (await house.claim("claim-forget", action="forget")).reason == "forgotten"
    assert accounts_of(house.folder).all == {}
    assert (await house.claim("claim-forget-2", action="forget")).reason == "unknown_node"
    await asyncio.sleep(0.2)
    assert house.members.messages[-1][0] is None


async def test_claims_that_cannot_be_carried_out(house: House, node: Node, open_node: OpenNode) -> None:
    assert (await house.claim("claim-nobody", code="12345678")).reason == "unknown_node"
    await house.find(node)
    assert (await house.claim("claim-no-code")).reason == "malformed"
    assert (await house.claim("claim-too-late", code=node.code, deadline=1.0)).reason == "expired"
    second = await open_node("second")
    await house.find(second, "attic-2._rouse._tcp.local.")
    result = await house.claim("claim-of-two", code=node.code)
    assert result.reason == "name_taken"
    assert "Several nodes call themselves attic" in result.message
    await house.service._note("attic-2._rouse._tcp.local.", None)
    assert (await house.claim("claim-of-one", code=node.code)).reason == "paired"


async def test_a_node_that_comes_onto_the_bus_is_paired(house: House, node: Node) -> None:
    ledger = house.service._ledger
    key = node.door._key
    ledger.prepare(NODE, key.identity(NODE).fingerprint, key.request_pem(NODE), ("expert",))
    assert ledger.members()[NODE].state == "handed_over"
    await house.client.publish(NODE_STATUS, Presence(state="online"), node=NODE)
    await house.members.wait_for(1)
    assert house.members.messages[-1][0].state == "paired"


async def test_an_offer_goes_with_its_node(house: House, node: Node) -> None:
    assert isinstance(node.clock, Clock)
    await house.find(node)
    await house.offers.wait_for(1)
    await house.service._note("attic._rouse._tcp.local.", None)
    await house.offers.wait_for(2)
    assert house.offers.messages[-1][0] is None
