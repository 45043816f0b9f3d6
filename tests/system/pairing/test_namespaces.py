"""A hub and a node in networks of their own: real multicast, real commands, from the flash to the house."""

import os
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from scripts.house.mosquitto import program
from scripts.house.processes import tail
from tests.system.pairing.beside import broker_settings, mosquitto_beside
from tests.system.pairing.sides import (
    ADDRESSES,
    EMBEDDED,
    HUB,
    NODE,
    Side,
    connected,
    http_get,
    hub_settings,
    listed,
    node_settings,
    shown_code,
    two_networks,
    until_it_says,
)

pytestmark = [
    pytest.mark.root,
    pytest.mark.broker,
    pytest.mark.timeout(400),
    pytest.mark.skipif(os.geteuid() != 0 or shutil.which("ip") is None, reason="needs root and iproute2"),
    pytest.mark.skipif(program() is None, reason="mosquitto is not installed: apt-get install mosquitto"),
]


@pytest.fixture
def networks() -> Iterator[None]:
    with two_networks():
        yield


@pytest.fixture(params=["embedded", "mosquitto"])
async def hub(request: pytest.FixtureRequest, networks: None, tmp_path: Path) -> AsyncIterator[Side]:  # noqa: ARG001
    folder = tmp_path / "hub"
    embedded = request.param == "embedded"
    side = Side(HUB, folder, hub_settings(folder, EMBEDDED if embedded else broker_settings(folder)))
    async with AsyncExitStack() as stack:
        if not embedded:
            await stack.enter_async_context(mosquitto_beside(side))
        await stack.enter_async_context(side.running("appliance", "hub"))
        await until_it_says(side, "connected to the MQTT broker")
        yield side


@pytest.fixture
def node(tmp_path: Path) -> Side:
    return Side(NODE, tmp_path / "node", node_settings(tmp_path / "node"))


async def test_from_the_first_start_to_the_house_and_out_again(hub: Side, node: Side) -> None:
    async with node.running("appliance", "node"):
        told = await listed(hub, lambda told: bool(told["waiting"]))
        offer = told["waiting"][0]
        assert (offer["node"], offer["title"], offer["state"]) == ("attic", "Attic", "open")
        assert offer["address"] == f"{ADDRESSES[NODE]}:8104"
        code = await shown_code(node)
        wrong = f"{(int(code.replace(' ', '')) + 1) % 10**8:08}"
        assert await hub.rouse("pair", "attic", typed=wrong) == (
            1,
            "rouse: The code is wrong. 4 attempts are left.\n",
        )
        exit_code, output = await hub.rouse("pair", "attic", typed=f"{code}\n")
        assert (exit_code, output) == (0, "attic belongs to this hub.\n"), tail(hub.log, 40)
        told = await listed(hub, lambda told: not told["waiting"] and told["paired"][0]["state"] == "paired")
        assert told["paired"][0]["fingerprint"] == offer["fingerprint"]
        await connected(node)
        with pytest.raises(AssertionError):
            await http_get(node, "http://127.0.0.1:8104/pairing")
    for text in (tail(hub.log, 10_000), tail(node.log, 10_000)):
        assert code.replace(" ", "") not in text
        assert code not in text
    async with node.running("appliance", "node"):
        await connected(node)
        assert await hub.rouse("pair", "forget", "attic") == (
            0,
            "attic belongs to this hub no more. To pair it anew, run rouse pair reset on it.\n",
        )
    assert (await node.rouse("pair", "reset"))[0] == 0
    assert not list((node.folder / "state").rglob("*.p*"))
    async with node.running("appliance", "node"):
        told = await listed(hub, lambda told: bool(told["waiting"]) and not told["paired"])
        assert told["waiting"][0]["fingerprint"] != offer["fingerprint"]
        assert (await hub.rouse("pair", "attic", typed=await shown_code(node)))[0] == 0
        await connected(node)
