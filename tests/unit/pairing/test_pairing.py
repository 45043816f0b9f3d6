"""A hub and a node, over real HTTP."""

import asyncio
import errno
import json
import stat
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from appliance import durable_files
from appliance.pairing.codes import Attempts
from appliance.pairing.errors import ImpostorError, RefusedError, UnreachableError
from appliance.pairing.exchange import Exchange, new_session
from appliance.pairing.identity import NodeKey
from appliance.pairing.wire import Identity
from appliance.security.broker import connect_to
from appliance.security.ca.authority import Authority
from appliance.security.ca.store import CaStore
from appliance.security.paired import PairingFiles, read_pairing
from appliance.settings.model import NodeSettings, PathSettings, Settings
from appliance.settings.section import Role
from tests.unit.pairing.conftest import NODE, Clock, Hub, Node, OpenNode, decoded, encoded
from tests.unit.pairing.offices import EXPERT_KEY, has_account, valid


async def test_a_node_gets_all_it_needs(hub: Hub, node: Node) -> None:
    claimed = await hub.claim(node)
    assert claimed.fingerprint == node.door.identity.fingerprint
    assert node.door.paired.is_set()
    files, pairing = PairingFiles(node.state), read_pairing(node.state)
    assert pairing is not None
    assert (pairing.hub, pairing.broker_url, pairing.username) == ("house", "mqtts://127.0.0.1:8883", NODE)
    assert has_account(hub.folder, NODE, files.password.read_text().strip())
    assert files.expert_key.read_text().strip() == EXPERT_KEY
    assert valid(hub.authority)[NODE] == files.certificate.read_text()
    certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(files.ca.read_bytes()))
    key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    assert key.public_key() == certificate.public_key()
    for path in (files.password, files.key, files.certificate, files.record, files.expert_key):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not (node.state / "pairing").exists()
    assert not files.journal.exists()
    assert hub.ledger.members()[NODE].state == "paired"
    settings = Settings(node=NodeSettings(roles=("expert",)), paths=PathSettings(state=node.state))
    connection = connect_to(settings)
    assert (connection.host, connection.port, connection.username) == ("127.0.0.1", 8883, NODE)
    assert connection.tls is not None


async def test_nothing_secret_is_said_in_the_clear(hub: Hub, node: Node, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    code = node.code
    heard = bytearray()

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            heard.extend(data)
            writer.write(data)
        writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", node.port)
        await asyncio.gather(pipe(reader, there_writer), pipe(there_reader, writer), return_exceptions=True)

    async with await asyncio.start_server(relay, "127.0.0.1", 0) as server:
        await hub.claim(node, port=server.sockets[0].getsockname()[1])
    assert len(heard) > 2000
    password = PairingFiles(node.state).password.read_text().strip()
    for secret in (code, password, EXPERT_KEY, "BEGIN CERTIFICATE", "mqtts://"):
        assert secret.encode() not in heard
        assert secret not in caplog.text


async def test_the_door_is_shut_after_pairing(
    hub: Hub, node: Node, tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    await hub.claim(node)
    with pytest.raises(RefusedError, match="belongs to a hub already"):
        await Hub(tmp_path / "other", http).claim(node, code="12345678")


async def test_wrong_codes_lock_the_door_longer_each_time(hub: Hub, node: Node) -> None:
    shown = node.code
    for left in (4, 3, 2, 1, 0):
        with pytest.raises(RefusedError, match="code is wrong") as refused:
            await hub.claim(node, node.wrong_code)
        assert refused.value.attempts_left == left
    assert node.door_state == "locked"
    with pytest.raises(RefusedError, match="Too many") as refused:
        await hub.claim(node, shown)
    assert refused.value.retry_after == 600
    assert hub.ledger.members() == {}
    assert hub.accounts.all == {}
    node.clock.now += 601
    assert node.door_state == "open"
    assert node.code != shown
    for _ in range(5):
        with pytest.raises(RefusedError, match="code is wrong"):
            await hub.claim(node, node.wrong_code)
    assert node.door.locked_for == 1200
    node.clock.now += 1201
    await hub.claim(node)


async def test_wrong_codes_are_forgotten_after_a_while(hub: Hub, node: Node) -> None:
    for _ in range(4):
        with pytest.raises(RefusedError):
            await hub.claim(node, node.wrong_code)
    node.clock.now += 2 * 86_400 + 1
    with pytest.raises(RefusedError) as refused:
        await hub.claim(node, node.wrong_code)
    assert refused.value.attempts_left == 4


def test_how_many_codes_can_be_tried_in_a_month() -> None:
    """By somebody who knows the rules, and tries whenever the door is open."""
    clock = Clock()
    attempts = Attempts(clock=clock)
    tried = 0
    while clock.now < 30 * 86_400:
        if attempts.locked_for == 0:
            attempts.wrong()
            tried += 1
        clock.now += 60
    assert tried <= 200


async def test_slow_guesses_lock_the_door_too(hub: Hub, node: Node) -> None:
    for _ in range(5):
        with pytest.raises(RefusedError, match="code is wrong"):
            await hub.claim(node, node.wrong_code)
        node.clock.now += 3600
    node.clock.now -= 3600
    assert node.door_state == "locked"


async def test_who_stands_at_the_machine_opens_a_locked_door(hub: Hub, node: Node) -> None:
    for _ in range(5):
        with pytest.raises(RefusedError):
            await hub.claim(node, node.wrong_code)
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(node.socket))) as own:
        async with own.get("http://node/code") as response:
            assert await response.json() == {
                "state": "locked",
                "key": node.door.identity.fingerprint,
                "code": None,
                "expires_in": None,
                "locked_for": 600,
            }
        async with own.post("http://node/code") as response:
            told = await response.json()
    assert told["state"] == "open"
    await hub.claim(node, told["code"].replace(" ", ""))
    assert stat.S_IMODE(node.socket.stat().st_mode) == 0o660


async def test_a_code_expires(hub: Hub, node: Node) -> None:
    old = node.code
    node.clock.now += 601
    with pytest.raises(RefusedError, match="wrong"):
        await hub.claim(node, old)
    assert node.code != old


async def test_a_second_claimant_is_refused_and_the_first_is_told(
    hub: Hub, node: Node, tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    other = Hub(tmp_path / "other", http, name="thief")
    code = node.code
    prepare = hub.ledger.prepare
    loop = asyncio.get_running_loop()

    def claimed_meanwhile(*arguments: object) -> object:
        coming = asyncio.run_coroutine_threadsafe(other.claim(node, code), loop)
        with pytest.raises(RefusedError, match="Another hub"):
            coming.result(timeout=30)
        return prepare(*arguments)  # type: ignore[arg-type]

    hub.ledger.prepare = claimed_meanwhile  # type: ignore[method-assign, assignment]
    claimed = await hub.claim(node)
    assert claimed.others == ("127.0.0.1",)
    pairing = read_pairing(node.state)
    assert pairing is not None
    assert pairing.hub == "house"


async def test_a_code_counts_for_one_claim(hub: Hub, node: Node, http: aiohttp.ClientSession) -> None:
    """A hub that went away after its proof has used up the code, and keeps the door shut for a minute only."""
    code = node.code
    await _prove_and_leave(node, http, code)
    assert node.door_state == "claimed"
    with pytest.raises(RefusedError, match="Another hub"):
        await hub.claim(node, code)
    node.clock.now += 61
    assert node.door_state == "open"
    with pytest.raises(RefusedError, match="code is wrong"):
        await hub.claim(node, code)
    await hub.claim(node)


async def _prove_and_leave(node: Node, http: aiohttp.ClientSession, code: str) -> None:
    session, identity = new_session(), Identity(name="gone", fingerprint="0" * 64)
    exchange = Exchange("hub", code=code, session=session, identity=identity.encoded())
    start = {
        "version": 1,
        "session": session.hex(),
        "hub": identity.model_dump(),
        "share": encoded(exchange.share),
    }
    async with http.post(node.url("/pairing/start"), json=start) as response:
        told = await response.json()
    exchange.meet(decoded(told["share"]), Identity(**told["node"]).encoded())
    proof = {"session": session.hex(), "tag": encoded(exchange.tag)}
    async with http.post(node.url("/pairing/prove"), json=proof) as response:
        assert response.status == 200


@pytest.mark.parametrize("url", ["mqtts://", "mqtt://user:password@host", "mqtt://host:99999", "mqtt://host/path"])
async def test_a_broker_that_the_node_could_not_reach(hub: Hub, node: Node, url: str) -> None:
    hub.claimant._broker_url = lambda _: url
    with pytest.raises(RefusedError, match="nothing that a node can use") as refused:
        await hub.claim(node)
    assert "sealed" not in str(refused.value)
    assert not node.door.paired.is_set()
    assert read_pairing(node.state) is None
    assert hub.ledger.members() == {}
    assert hub.accounts.all == {}


class OtherAuthority(Authority):
    """Signs for another node than it was asked to."""

    def sign(self, request_pem: bytes, *, name: str, roles: tuple[Role, ...], days: int) -> bytes:
        return super().sign(request_pem, name=f"{name}-2", roles=roles, days=days)


class ForeignAuthority(Authority):
    """Signs another key than it was asked to."""

    def sign(self, request_pem: bytes, *, name: str, roles: tuple[Role, ...], days: int) -> bytes:
        assert request_pem
        other = NodeKey(ec.generate_private_key(ec.SECP256R1())).request_pem(name)
        return super().sign(other, name=name, roles=roles, days=days)


@pytest.mark.parametrize(("kind", "said"), [(OtherAuthority, "another name"), (ForeignAuthority, "another key")])
async def test_a_certificate_that_does_not_fit(
    hub: Hub, node: Node, tmp_path: Path, kind: type[Authority], said: str
) -> None:
    """The node refuses it, and the hub takes everything back."""
    hub.ledger.authority = kind(CaStore(tmp_path / "hub" / "ca"), house="house")
    with pytest.raises(RefusedError, match=said):
        await hub.claim(node)
    assert read_pairing(node.state) is None
    assert hub.ledger.members() == {}
    assert hub.accounts.all == {}
    assert node.door_state == "open"
    hub.ledger.authority = hub.authority
    await hub.claim(node)


class BrokenAuthority(Authority):
    """Signs nothing."""

    def sign(self, request_pem: bytes, *, name: str, roles: tuple[Role, ...], days: int) -> bytes:
        raise KeyError(request_pem, name, roles, days)


async def test_a_ca_that_fails(hub: Hub, node: Node, tmp_path: Path) -> None:
    hub.ledger.authority = BrokenAuthority(CaStore(tmp_path / "hub" / "ca"), house="house")
    with pytest.raises(KeyError):
        await hub.claim(node)
    assert hub.ledger.members() == {}
    assert hub.accounts.all == {}


async def test_a_disk_that_is_full(hub: Hub, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever writing fails, the node says so, and both are as before."""
    write = durable_files.write
    for failing in ("pairing.journal", "node.pem", "pairing.json"):

        def fail(path: Path, content: bytes, *, mode: int, group: int | None = None, name: str = failing) -> bool:
            if path.name == name:
                raise OSError(errno.ENOSPC, "No space left on device")
            return write(path, content, mode=mode, group=group)

        monkeypatch.setattr(durable_files, "write", fail)
        with pytest.raises(RefusedError, match="can't keep the credentials"):
            await hub.claim(node)
        assert hub.ledger.members() == {}
        assert sorted(path.name for path in node.state.rglob("*") if path.is_file()) == ["node.key"]
    monkeypatch.setattr(durable_files, "write", write)
    await hub.claim(node)


async def test_two_nodes_of_one_name_are_told_apart(hub: Hub, node: Node, open_node: OpenNode) -> None:
    await hub.claim(node)
    second = await open_node("second")
    with pytest.raises(RefusedError, match="with another key") as refused:
        await hub.claim(second)
    assert refused.value.reason == "name_taken"
    assert hub.ledger.forget(NODE)
    assert hub.accounts.all == {}
    assert valid(hub.authority) == {}
    await hub.claim(second)


async def test_another_key_than_announced(hub: Hub, node: Node) -> None:
    with pytest.raises(ImpostorError, match="another key"):
        await hub.claim(node, fingerprint="f" * 64)


async def test_another_node_than_meant(hub: Hub, node: Node) -> None:
    with pytest.raises(RefusedError, match="answers attic, and not cellar"):
        await hub.claim(node, node="cellar")


async def test_a_node_that_is_off(hub: Hub, node: Node) -> None:
    with pytest.raises(UnreachableError, match="does not answer"):
        await hub.claim(node, port=1)


async def test_something_else_than_a_node(hub: Hub, node: Node) -> None:
    async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        writer.close()

    async with await asyncio.start_server(other, "127.0.0.1", 0) as server:
        with pytest.raises(UnreachableError, match="something else than a node"):
            await hub.claim(node, port=server.sockets[0].getsockname()[1])


async def test_what_the_door_tells_everybody(node: Node, http: aiohttp.ClientSession) -> None:
    async with http.get(node.url("/pairing")) as response:
        told = await response.json()
    assert told["state"] == "open"
    assert told["node"]["name"] == NODE
    assert node.code not in json.dumps(told)
    async with http.get(node.url("/first-boot")) as response:
        assert await response.json() == {"state": "none"}
    async with http.get(node.url("/code")) as response:
        assert response.status == 404
