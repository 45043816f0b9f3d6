"""A hub and a node in networks of their own, and all that passes between them with certificates of the house."""

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from scripts.house.appliance import MODEL
from tests.system.pairing.sides import (
    ADDRESSES,
    EMBEDDED,
    HUB,
    NODE,
    NODES_PORT,
    Side,
    connected,
    hub_settings,
    node_settings,
    paired,
    two_networks,
    until_it_says,
)

pytestmark = [
    pytest.mark.root,
    pytest.mark.broker,
    pytest.mark.model,
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.geteuid() != 0 or shutil.which("ip") is None, reason="needs root and iproute2"),
    pytest.mark.skipif(not MODEL.exists(), reason="the model is not there: make setup"),
]

EXPERT_PORT = 18_201
SECONDS = 120.0
EXPERT = f"""
[experts.small]
model = "{MODEL.name}"
port = {EXPERT_PORT}
context = 512
slots = 1
threads = 1
"""
SHUT_OUT = ("RemoteDisconnected", "ConnectionResetError", "BrokenPipeError")
"""How a handshake that a server of asyncio refuses ends: it closes before its alert is sent."""
TLS_CLIENT = """
import http.client, json, ssl, sys
told = json.loads(sys.argv[1])
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
if told["chain"]:
    context.load_cert_chain(told["chain"], told["key"])
connection = http.client.HTTPSConnection(told["host"], told["port"], context=context, timeout=10)
connection.request("GET", told["path"], headers=told["headers"])
print(connection.getresponse().status)
"""
CHAT = """
import json, sys, urllib.request
body = {"model": "auto", "max_tokens": 4, "messages": [{"role": "user", "content": "Say hello."}]}
request = urllib.request.Request("http://127.0.0.1:8100/v1/chat/completions", data=json.dumps(body).encode(),
    headers={"Authorization": "Bearer " + sys.argv[1], "Content-Type": "application/json"})
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
try:
    with opener.open(request, timeout=60) as response:
        print(json.dumps([response.status, json.load(response)]))
except urllib.error.HTTPError as error:
    print(json.dumps([error.code, json.load(error)]))
"""


@dataclass
class House:
    """Both machines."""

    hub: Side
    node: Side

    async def chat(self) -> tuple[int, dict[str, Any]]:
        """Ask the gateway on the hub."""
        key = (self.hub.secrets / "hub" / "gateway.key").read_text().strip()
        code, output = await self.hub.python(CHAT, key)
        assert code == 0, output
        status, body = json.loads(output)
        return status, body

    async def answers(self) -> None:
        """Wait until the node's expert answers through the gateway."""
        body: Any = None
        async with asyncio.timeout(SECONDS):
            while True:
                status, body = await self.chat()
                if status == 200:
                    assert body["rouse"]["node"] == "attic" or body["rouse"]["expert"] == "small"
                    return
                await asyncio.sleep(1)

    async def ask_expert(self, *, chain: Path | None = None, key: Path | None = None, path: str = "/v1/models") -> str:
        """Ask the expert from the hub's machine, with any certificate; return the status or what went wrong."""
        expert_key = (self.hub.secrets / "experts" / "expert.key").read_text().strip()
        told = {
            "host": ADDRESSES[NODE],
            "port": EXPERT_PORT,
            "path": path,
            "chain": str(chain) if chain else None,
            "key": str(key) if key else None,
            "headers": {"Authorization": f"Bearer {expert_key}"},
        }
        _, output = await self.hub.python(TLS_CLIENT, json.dumps(told))
        return output.strip().splitlines()[-1]

    async def certificates(self, *arguments: str) -> list[dict[str, Any]]:
        code, output = await self.hub.rouse("certificate", "list", "--json", *arguments)
        assert code == 0, output
        return list(json.loads(output)["certificates"])

    async def serial(self, name: str) -> str:
        return str(next(one["serial"] for one in await self.certificates() if one["name"] == name))

    async def until_serial_is_not(self, name: str, serial: str) -> None:
        async with asyncio.timeout(SECONDS):
            while await self.serial(name) == serial:
                await asyncio.sleep(0.5)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    with two_networks():
        hub = Side(HUB, tmp_path / "hub", hub_settings(tmp_path / "hub", EMBEDDED))
        node = Side(NODE, tmp_path / "node", node_settings(tmp_path / "node", EXPERT))
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(hub.running("appliance", "hub"))
            await until_it_says(hub, "connected to the MQTT broker")
            await stack.enter_async_context(node.running("appliance", "node"))
            await paired(hub, node)
            yield House(hub, node)


async def test_the_gateway_reaches_a_nodes_expert_and_nobody_else_does(house: House) -> None:
    keys = [(machine.secrets / "experts" / "expert.key").read_text() for machine in (house.hub, house.node)]
    assert keys[0] == keys[1]
    await house.answers()
    tls = house.hub.secrets / "hub" / "tls"
    assert await house.ask_expert(chain=tls / "hub.pem", key=tls / "hub.key") == "200"
    said = await house.ask_expert()
    assert any(way in said for way in SHUT_OUT), said
    # Another node's certificate is the house's, but not the hub's.
    other = house.hub.folder / "other"
    make = (
        "import sys\n"
        "from pathlib import Path\n"
        "from appliance.pairing.identity import NodeKey\n"
        "from appliance.security.ca.authority import Authority, ca_folder\n"
        "from appliance.security.ca.store import CaStore\n"
        "folder = Path(sys.argv[2])\n"
        "key = NodeKey.open(folder / 'node.key')\n"
        "authority = Authority(CaStore(ca_folder(Path(sys.argv[1]))), house='house')\n"
        "chain = authority.sign(key.request_pem('cellar'), name='cellar', roles=('hub', 'expert'), days=1)\n"
        "(folder / 'node.pem').write_bytes(chain)\n"
    )
    code, output = await house.hub.python(make, house.hub.folder / "state", other)
    assert code == 0, output
    assert await house.ask_expert(chain=other / "node.pem", key=other / "node.key") == "403"
    assert await house.ask_expert(chain=other / "node.pem", key=other / "node.key", path="/health") == "403"
    # A monitor sees how it is, and no more.
    assert (await house.hub.rouse("certificate", "issue", "prometheus", "--out", str(other), "--monitor"))[0] == 0
    monitor = {"chain": other / "prometheus.pem", "key": other / "prometheus.key"}
    assert await house.ask_expert(**monitor, path="/metrics") == "200"
    assert await house.ask_expert(**monitor, path="/v1/models") == "403"


async def test_certificates_are_renewed_and_the_ca_is_replaced_without_a_restart(house: House) -> None:
    await house.answers()
    first, of_hub = await house.serial("attic"), await house.serial("rouse")
    assert (await house.hub.rouse("certificate", "renew", "attic"))[0] == 0
    await house.until_serial_is_not("attic", first)
    await until_it_says(house.node, "this node has a new certificate")
    second = await house.serial("attic")

    assert (await house.hub.rouse("certificate", "rotate-ca"))[0] == 0
    await house.until_serial_is_not("rouse", of_hub)
    await house.until_serial_is_not("attic", second)
    await until_it_says(house.node, "this node has a new certificate", times=2)
    pem = (house.node.secrets / "experts" / "house" / "ca.pem").read_text()
    assert pem.count("BEGIN CERTIFICATE") == 2
    await until_it_says(house.node, "the renewed certificate is in use", times=1)
    await house.answers()
    assert house.node.log.read_text().count("starting it again") == 0
    code, output = await house.hub.rouse("certificate", "rotate-ca")
    assert code == 1
    assert "is trusted until" in output


async def test_a_node_that_slept_through_a_new_ca_comes_back(tmp_path: Path) -> None:
    with two_networks():
        hub = Side(HUB, tmp_path / "hub", hub_settings(tmp_path / "hub", EMBEDDED))
        node = Side(NODE, tmp_path / "node", node_settings(tmp_path / "node"))
        async with hub.running("appliance", "hub"):
            await until_it_says(hub, "connected to the MQTT broker")
            async with node.running("appliance", "node"):
                await paired(hub, node)
        assert (await hub.rouse("certificate", "rotate-ca"))[0] == 0
        async with hub.running("appliance", "hub"), node.running("appliance", "node"):
            await connected(node)
            await until_it_says(node, "this node has a new certificate")
        # It knows the new one alone now, and that is enough.
        async with hub.running("appliance", "hub"), node.running("appliance", "node"):
            await connected(node)


async def test_a_revoked_node_is_out_at_once(house: House) -> None:
    await house.answers()
    assert await at_the_broker(house) == "let in"
    assert (await house.hub.rouse("certificate", "revoke", "attic", "--yes"))[0] == 0
    await connected(house.node, whether=False)
    status, body = await house.chat()
    assert status >= 500, body
    assert await at_the_broker(house) == "shut out"
    assert (await house.hub.rouse("pair", "forget", "attic"))[0] == 0


async def at_the_broker(house: House) -> str:
    """Knock at the broker with the node's certificate; whoever is let in may take his time to speak."""
    handshake = (
        "import socket, ssl, sys\n"
        "context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)\n"
        "context.check_hostname, context.verify_mode = False, ssl.CERT_NONE\n"
        "context.load_cert_chain(sys.argv[1] + '/node.pem', sys.argv[1] + '/node.key')\n"
        "with socket.create_connection((sys.argv[2], int(sys.argv[3])), 10) as plain:\n"
        "    with context.wrap_socket(plain) as connection:\n"
        "        connection.settimeout(3)\n"
        "        try:\n"
        "            connection.recv(1)\n"
        "        except TimeoutError:\n"
        "            print('let in')\n"
        "        else:\n"
        "            print('shut out')\n"
    )
    identity = house.node.secrets / "experts" / "house"
    code, output = await house.node.python(handshake, identity, ADDRESSES[HUB], str(NODES_PORT))
    return output.strip() if code == 0 else "shut out"
