"""Experts on nodes that have a certificate: over mutual TLS, by the node's name, and not otherwise."""

import ssl
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from aiohttp import web

from appliance.bus.messages import ExpertStatus
from appliance.security.tls import peer, server_context
from tests.unit.gateway.conftest import EXPERT_KEY, Gateway, Start, whole
from tests.unit.security.test_tls import House


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path / "house")


class Node:
    """An expert's server that notes who asks."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    async def start(self, stack: AsyncExitStack, tls: ssl.SSLContext | None) -> str:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._answer)
        runner = web.AppRunner(app, shutdown_timeout=1)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        return f"http{'s' if tls else ''}://127.0.0.1:{runner.addresses[0][1]}/v1"

    async def _answer(self, request: web.Request) -> web.Response:
        other = peer(request.get_extra_info("ssl_object"))
        self.asked.append((other.name if other else "", request.headers.get("Authorization", "")))
        return web.json_response(whole("from the node"))


async def announce(gateway: Gateway, node: str, url: str) -> None:
    status = ExpertStatus(
        expert="small", node=node, state="ready", url=url, capabilities=("chat", "completions"), context=2048
    )
    await gateway.registry._on_expert(status, {"node": node, "expert": "small"})


async def ask(gateway: Gateway) -> tuple[int, str]:
    async with gateway.post(model="small") as response:
        return response.status, await response.text()


async def test_the_hub_shows_its_certificate_and_the_node_its_own(start: Start, house: House) -> None:
    attic = house.node("attic")
    house.trust.prepare()
    gateway = await start(trust=house.trust)
    node = Node()
    await announce(gateway, "attic", await node.start(gateway._stack, server_context(attic)))
    for _ in range(2):
        assert (await ask(gateway))[0] == 200
    assert node.asked == [("rouse", f"Bearer {EXPERT_KEY}")] * 2


async def test_another_node_at_its_address_gets_nothing(start: Start, house: House) -> None:
    house.node("attic")
    cellar = house.node("cellar")
    house.trust.prepare()
    gateway = await start(trust=house.trust)
    node = Node()
    await announce(gateway, "attic", await node.start(gateway._stack, server_context(cellar)))
    status, text = await ask(gateway)
    assert status in {502, 503}
    assert "not valid for 'attic.node." in text
    assert node.asked == []


async def test_a_node_that_has_a_certificate_is_not_asked_in_clear(start: Start, house: House) -> None:
    house.node("attic")
    house.trust.prepare()
    gateway = await start(trust=house.trust)
    node = Node()
    url = await node.start(gateway._stack, None)
    await announce(gateway, "attic", url)
    status, text = await ask(gateway)
    assert status in {502, 503}
    assert "speaks no TLS" in text
    assert node.asked == []
    # One that has none is this machine's own, or the user's business, as before.
    await announce(gateway, "cellar", url)
    assert (await ask(gateway))[0] == 200


async def test_a_revoked_node_is_asked_no_more_though_a_connection_was_open(start: Start, house: House) -> None:
    attic = house.node("attic")
    house.trust.prepare()
    gateway = await start(trust=house.trust)
    node = Node()
    await announce(gateway, "attic", await node.start(gateway._stack, server_context(attic)))
    assert (await ask(gateway))[0] == 200
    house.authority.revoke("attic")
    house.trust.prepare()
    status, text = await ask(gateway)
    assert status in {502, 503}
    assert "revoked" in text
    assert len(node.asked) == 1
