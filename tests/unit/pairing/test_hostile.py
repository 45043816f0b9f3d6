"""Those who mean harm: recorded exchanges, a man in the middle, guesses, and bytes that are none of these."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from appliance.pairing.errors import ImpostorError, PairingError, RefusedError, UnconfirmedError
from appliance.pairing.exchange import Exchange
from appliance.pairing.identity import NodeKey
from appliance.pairing.wire import Identity, SigningRequest
from appliance.security.paired import read_pairing
from tests.unit.pairing.conftest import NODE, Hub, Node, decoded, encoded
from tests.unit.pairing.offices import valid

PAYLOADS = 1000
SEED = 20261123
DOORS = ("/pairing/start", "/pairing/prove", "/pairing/finish")

JSON = {"Content-Type": "application/json"}

type Json = dict[str, Any]
type Change = Callable[[str, Json], Json]


@asynccontextmanager
async def man_in_the_middle(
    node: Node, http: aiohttp.ClientSession, *, request: Change | None = None, reply: Change | None = None
) -> AsyncIterator[tuple[int, list[tuple[str, Json]]]]:
    """Relay between hub and node, and change what goes by."""
    recorded: list[tuple[str, Json]] = []

    async def relay(asked: web.Request) -> web.Response:
        body = await asked.json()
        recorded.append((asked.path, body))
        if request is not None:
            body = request(asked.path, body)
        async with http.post(node.url(asked.path), json=body) as answer:
            told = await answer.json()
            status = answer.status
        if reply is not None and status == 200:
            told = reply(asked.path, told)
        return web.json_response(told, status=status)

    app = web.Application()
    app.router.add_post("/{path:.*}", relay)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield runner.addresses[0][1], recorded
    finally:
        await runner.cleanup()


def flipped(text: str) -> str:
    data = bytearray(decoded(text))
    data[len(data) // 2] ^= 1
    return encoded(bytes(data))


def changing(path: str, **values: Callable[[Any], Any]) -> Change:
    def change(asked: str, body: Json) -> Json:
        if asked != path:
            return body
        return {**body, **{key: value(body[key]) for key, value in values.items()}}

    return change


CHANGED_REQUESTS = {
    "session": changing("/pairing/prove", session=lambda _: "0" * 32),
    "hub's share": changing("/pairing/start", share=flipped),
    "hub's identity": changing("/pairing/start", hub=lambda hub: {**hub, "fingerprint": "1" * 64}),
    "hub's name": changing("/pairing/start", hub=lambda hub: {**hub, "name": "thief"}),
    "hub's proof": changing("/pairing/prove", tag=flipped),
    "credentials": changing("/pairing/finish", sealed=flipped),
}
CHANGED_REPLIES = {
    "node's share": changing("/pairing/start", share=flipped),
    "node's fingerprint": changing("/pairing/start", node=lambda node: {**node, "fingerprint": "2" * 64}),
    "node's proof": changing("/pairing/prove", tag=flipped),
    "request for a certificate": changing("/pairing/prove", sealed=flipped),
    "low-order share": changing("/pairing/start", share=lambda _: encoded(bytes(32))),
}


@pytest.mark.parametrize("change", CHANGED_REQUESTS.values(), ids=CHANGED_REQUESTS)
async def test_a_changed_request_pairs_nobody(
    hub: Hub, node: Node, http: aiohttp.ClientSession, change: Change
) -> None:
    async with man_in_the_middle(node, http, request=change) as (port, _):
        with pytest.raises(PairingError):
            await hub.claim(node, port=port)
    assert not node.door.paired.is_set()
    assert read_pairing(node.state) is None
    assert valid(hub.authority) == {}
    assert hub.accounts.all == {}


@pytest.mark.parametrize("change", CHANGED_REPLIES.values(), ids=CHANGED_REPLIES)
async def test_a_changed_reply_pairs_nobody(hub: Hub, node: Node, http: aiohttp.ClientSession, change: Change) -> None:
    async with man_in_the_middle(node, http, reply=change) as (port, _):
        with pytest.raises(PairingError):
            await hub.claim(node, port=port)
    assert not node.door.paired.is_set()
    assert hub.ledger.members() == {}
    assert hub.accounts.all == {}


async def test_a_changed_last_word_leaves_the_node_with_credentials_that_count(
    hub: Hub, node: Node, http: aiohttp.ClientSession
) -> None:
    change = changing("/pairing/finish", sealed=flipped)
    async with man_in_the_middle(node, http, reply=change) as (port, _):
        with pytest.raises(UnconfirmedError):
            await hub.claim(node, port=port)
    assert read_pairing(node.state) is not None
    assert hub.ledger.members()[NODE].state == "handed_over"
    assert NODE in hub.accounts.all


async def test_a_man_in_the_middle_who_answers_himself_cannot_swap_the_request(
    hub: Hub, node: Node, http: aiohttp.ClientSession, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """He runs the exchange with each side, and does not know the code: his proofs are wrong on both."""
    own = NodeKey.open(tmp_path_factory.mktemp("thief") / "key")
    mine: dict[str, Exchange] = {}

    def swap(path: str, told: Json) -> Json:
        if path != "/pairing/prove":
            return told
        wanted = SigningRequest(request_pem=own.request_pem(NODE).decode(), roles=("expert",))
        return {**told, "sealed": encoded(mine["hub"].seal(wanted.model_dump_json().encode(), step=1))}

    def meet_hub(path: str, told: Json) -> Json:
        if path == "/pairing/start":
            return {"node": told["node"], "share": encoded(mine["hub"].share)}
        return swap(path, told)

    def take_start(path: str, body: Json) -> Json:
        if path == "/pairing/start":
            identity = Identity(name=NODE, fingerprint=node.door.identity.fingerprint)
            exchange = Exchange(
                "node", code="00000000", session=bytes.fromhex(body["session"]), identity=identity.encoded()
            )
            exchange.meet(decoded(body["share"]), Identity(**body["hub"]).encoded())
            mine["hub"] = exchange
        return body

    async with man_in_the_middle(node, http, request=take_start, reply=meet_hub) as (port, _):
        with pytest.raises((ImpostorError, RefusedError)):
            await hub.claim(node, port=port)
    assert valid(hub.authority) == {}
    assert not node.door.paired.is_set()


async def test_a_forged_node_learns_nothing_and_gets_nothing(hub: Hub, node: Node) -> None:
    """It answers in the node's place without knowing the code. It gets the hub's proof, which is one guess."""

    async def answer(asked: web.Request) -> web.Response:
        body = await asked.json()
        if asked.path == "/pairing/start":
            identity = Identity(name=NODE, fingerprint="3" * 64)
            exchange = Exchange(
                "node", code="00000000", session=bytes.fromhex(body["session"]), identity=identity.encoded()
            )
            exchange.meet(decoded(body["share"]), Identity(**body["hub"]).encoded())
            asked.app[_EXCHANGE].append(exchange)
            return web.json_response({"node": identity.model_dump(), "share": encoded(exchange.share)})
        exchange = asked.app[_EXCHANGE][-1]
        return web.json_response({"tag": encoded(exchange.tag), "sealed": encoded(exchange.seal(b"{}", step=1))})

    app = web.Application()
    app[_EXCHANGE] = []
    app.router.add_post("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        with pytest.raises(ImpostorError, match="not the node that shows this code"):
            await hub.claim(node, code="12345678", port=runner.addresses[0][1])
    finally:
        await runner.cleanup()
    assert hub.accounts.all == {}


_EXCHANGE: web.AppKey[list[Exchange]] = web.AppKey("exchange", list)


async def test_a_recorded_exchange_is_worth_nothing(
    hub: Hub, node: Node, http: aiohttp.ClientSession, open_node: Callable[..., Awaitable[Node]]
) -> None:
    async with man_in_the_middle(node, http) as (port, recorded):
        await hub.claim(node, port=port)
    assert [path for path, _ in recorded] == list(DOORS)
    fresh = await open_node("fresh")
    for target in (node, fresh):
        for _ in range(2):
            for path, body in recorded:
                async with http.post(target.url(path), json=body) as response:
                    assert response.status == (200 if target is fresh and path == DOORS[0] else response.status)
                    if path != DOORS[0]:
                        assert response.status in {403, 404, 409}
    assert not fresh.door.paired.is_set()
    assert read_pairing(fresh.state) is None


async def test_a_thousand_hostile_bodies(hub: Hub, node: Node, http: aiohttp.ClientSession) -> None:
    async with man_in_the_middle(node, http, request=CHANGED_REQUESTS["credentials"]) as (port, recorded):
        with pytest.raises(PairingError):
            await hub.claim(node, port=port)
    node.clock.now += 61
    good = dict(recorded)
    chance = random.Random(SEED)
    statuses: dict[int, int] = {}
    for _ in range(PAYLOADS):
        path = chance.choice(DOORS)
        async with http.post(node.url(path), data=hostile(chance, good[path]), headers=JSON) as response:
            statuses[response.status] = statuses.get(response.status, 0) + 1
            told = await response.read()
            assert len(told) < 1000
            assert b"Traceback" not in told
    assert set(statuses) <= {200, 400, 403, 404, 413, 429}, statuses
    assert sum(statuses.values()) == PAYLOADS
    assert not node.door.paired.is_set()
    node.door.renew_code()
    await hub.claim(node)


def hostile(chance: random.Random, good: Json) -> bytes:
    """Return a body: noise, or a good one with something broken."""
    text = bytearray(json.dumps(good).encode())
    for _ in range(chance.randrange(1, 8)):
        text[chance.randrange(len(text))] = chance.randrange(256)
    key = chance.choice(list(good))
    value: Any = chance.choice([None, [], {}, -1, 1e308, "", "\0", "ÿ" * 100, True, {key: good}])
    return chance.choice(
        [
            chance.randbytes(chance.randrange(4096)),
            bytes(text),
            json.dumps(good).encode()[: chance.randrange(len(text))],
            b"[" * chance.randrange(60_000),
            json.dumps({**good, key: value}).encode(),
            json.dumps({**good, chance.choice(["x", "__class__", ""]): good}).encode(),
            b"x" * chance.randrange(70_000),
        ]
    )


async def test_raw_bytes_on_the_door(hub: Hub, node: Node, caplog: pytest.LogCaptureFixture) -> None:
    """What is no HTTP ends its own connection and nothing else."""
    chance = random.Random(SEED)
    for _ in range(200):
        reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
        start = chance.choice([b"", b"GET ", b"POST /pairing/start HTTP/1.1\r\n", b"\x16\x03\x01"])
        writer.write(start + chance.randbytes(chance.randrange(1, 500)))
        if chance.random() < 0.5:
            writer.write_eof()
        else:
            writer.close()
            continue
        await reader.read(4096)
        writer.close()
    assert "Traceback" not in caplog.text
    await hub.claim(node)


async def test_a_web_page_cannot_knock(node: Node, http: aiohttp.ClientSession) -> None:
    """A form of a page that somebody in the house looks at is no JSON."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        async with http.post(node.url("/pairing/prove"), data=b"{}", headers={"Content-Type": kind}) as response:
            assert response.status == 415
            assert "Access-Control-Allow-Origin" not in response.headers
    assert node.door._attempts.left == 5


async def test_a_body_that_never_comes_does_not_keep_others_out(hub: Hub, node: Node) -> None:
    slow = [await asyncio.open_connection("127.0.0.1", node.port) for _ in range(50)]
    for _, writer in slow:
        writer.write(b"POST /pairing/start HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
        writer.write(b"Content-Length: 1000\r\n\r\n{")
    await hub.claim(node)
    for _, writer in slow:
        writer.close()


async def test_many_beginnings_are_bounded(hub: Hub, node: Node, http: aiohttp.ClientSession) -> None:
    async with man_in_the_middle(node, http, request=CHANGED_REQUESTS["credentials"]) as (port, recorded):
        with pytest.raises(PairingError):
            await hub.claim(node, port=port)
    node.clock.now += 61
    start = dict(recorded)[DOORS[0]]
    for number in range(100):
        async with http.post(node.url(DOORS[0]), json={**start, "session": f"{number:032x}"}) as response:
            assert response.status == 200
    assert len(node.door._begun) == 16
    await hub.claim(node)
