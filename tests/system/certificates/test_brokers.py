"""What a node may do at the broker, and what nobody may; on amqtt and on mosquitto."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import aiomqtt
import pytest

from appliance.bus.messages import Presence
from appliance.bus.topics import ALL, NODE_STATUS
from appliance.security.ca import certificates
from appliance.security.ca.names import HUB_NAME
from appliance.security.tls import Identity, client_context
from scripts.house.mosquitto import program
from tests.system.certificates.brokers import Brokers, Member, embedded, mosquitto

pytestmark = [
    pytest.mark.broker,
    # paho leaves the socket of a handshake that failed to the garbage collector.
    pytest.mark.filterwarnings(
        "ignore:Exception ignored while finalizing socket:pytest.PytestUnraisableExceptionWarning"
    ),
]

ONLINE = NODE_STATUS.encode(Presence(state="online"))
QUIET_SECONDS = 1.0


@pytest.fixture(params=["embedded", "mosquitto"])
async def brokers(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Brokers]:
    if request.param == "mosquitto" and program() is None:
        pytest.skip("mosquitto is not installed: apt-get install mosquitto")
    async with (mosquitto if request.param == "mosquitto" else embedded)(tmp_path) as running:
        yield running


@pytest.fixture
async def attic(brokers: Brokers) -> Member:
    member = brokers.join("attic")
    await brokers.noticed()
    return member


async def heard(client: aiomqtt.Client, seconds: float = QUIET_SECONDS) -> dict[str, bytes]:
    """Return what comes until it is quiet."""
    found = {}
    messages = aiter(client.messages)
    try:
        while True:
            async with asyncio.timeout(seconds):
                message = await anext(messages)
            found[message.topic.value] = bytes(message.payload)
    except TimeoutError:
        return found


async def test_a_node_says_what_nodes_say_of_itself_alone(brokers: Brokers, attic: Member) -> None:
    async with brokers.plain("homeassistant") as observer, brokers.client(attic) as node:
        await observer.subscribe("#", qos=1)
        for topic in ALL:
            levels = {"expert": "small", "agent": "home", "client": "house"}
            for name in ("attic", "cellar"):
                there = {level: {"node": name, **levels}[level] for level in topic.parameters}
                await node.publish(topic.at(**there), b"{}", qos=1)
        await node.publish("homeassistant/light/kitchen/config", b"{}", qos=1)
        said = await heard(observer)
    levels = {"node": "attic", "expert": "small"}
    allowed = {topic.at(**{name: levels[name] for name in topic.parameters}) for topic in ALL if topic.sender == "node"}
    assert said.keys() == allowed


async def test_a_node_reads_what_is_sent_to_it_alone(brokers: Brokers, attic: Member) -> None:
    async with brokers.plain("homeassistant") as sender, brokers.client(attic) as node:
        for wanted in ("#", "rouse/#", "rouse/v1/nodes/+/power/commands", "rouse/v1/hub/+", "rouse/v1/nodes/attic/#"):
            with suppress(aiomqtt.MqttError):  # refused at once, or it comes to nothing
                await node.subscribe(wanted, qos=1)
        await node.subscribe("rouse/v1/nodes/attic/power/commands", qos=1)
        await node.subscribe("rouse/v1/hub/trust", qos=1)
        for topic in (
            "rouse/v1/nodes/attic/power/commands",
            "rouse/v1/nodes/cellar/power/commands",
            "rouse/v1/hub/trust",
            "rouse/v1/agents/home/requests",
            "rouse/v1/pairing/attic/claims",
            "rouse/v1/clients/house/replies",
            "homeassistant/status",
        ):
            await sender.publish(topic, b"x", qos=1)
        said = await heard(node)
    assert said.keys() == {"rouse/v1/nodes/attic/power/commands", "rouse/v1/hub/trust"}


async def lost(client: aiomqtt.Client) -> None:
    """Connect, and lose the connection without a goodbye."""
    with suppress(aiomqtt.MqttError, OSError):
        async with client:
            connection = client._client.socket()
            assert isinstance(connection, socket.socket)
            connection.shutdown(socket.SHUT_RDWR)
            await asyncio.sleep(QUIET_SECONDS)


async def test_what_was_retained_for_others_is_not_sent_to_who_connects(brokers: Brokers, attic: Member) -> None:
    async with brokers.plain("homeassistant") as other:
        await other.subscribe("#", qos=1)
        await other.publish("homeassistant/secret", b"x", qos=1, retain=True)
        await other.publish("rouse/v1/hub/trust", b"y", qos=1, retain=True)
        async with brokers.client(attic) as node:
            await node.subscribe("rouse/v1/hub/trust", qos=1)
            assert await heard(node) == {"rouse/v1/hub/trust": b"y"}


async def test_a_last_will_says_no_more_than_the_node_may(brokers: Brokers, attic: Member) -> None:
    forbidden = aiomqtt.Will("rouse/v1/agents/home/requests", b"{}", qos=1, retain=True)
    async with brokers.plain("homeassistant") as observer:
        await observer.subscribe("rouse/#", qos=1)
        await lost(brokers.client(attic, will=forbidden))
        assert await heard(observer) == {}
        own = aiomqtt.Will("rouse/v1/nodes/attic/status", b'{"state":"offline"}', qos=1, retain=True)
        await lost(brokers.client(attic, will=own))
        assert (await heard(observer, 3)).keys() == {"rouse/v1/nodes/attic/status"}


async def test_nobody_is_another_than_his_certificate_says(brokers: Brokers, attic: Member) -> None:
    """Even with the other's password."""
    cellar = brokers.join("cellar")
    await brokers.noticed()
    async with brokers.plain("homeassistant") as observer:
        await observer.subscribe("rouse/#", qos=1)
        for identifier in ("rouse-node-cellar", "rouse-node-attic", "rouse-hub-house"):
            try:
                async with brokers.client(
                    attic, user="cellar", password=cellar.password, identifier=identifier
                ) as thief:
                    await thief.publish("rouse/v1/nodes/cellar/status", ONLINE, qos=1)
            except aiomqtt.MqttError:
                pass
        assert "rouse/v1/nodes/cellar/status" not in await heard(observer)
        async with brokers.client(cellar) as honest:
            await honest.publish("rouse/v1/nodes/cellar/status", ONLINE, qos=1)
            assert (await heard(observer)).keys() == {"rouse/v1/nodes/cellar/status"}


async def test_a_node_cannot_take_over_the_session_of_another(brokers: Brokers, attic: Member) -> None:
    hub = brokers.plain("rouse", identifier="rouse-hub-house")
    async with hub:
        await hub.subscribe("rouse/v1/agents/+/requests", qos=1)
        for clean in (True, False):
            try:
                async with brokers.client(attic, identifier="rouse-hub-house", clean=clean) as thief:
                    assert await heard(thief) == {}
            except aiomqtt.MqttError:
                pass
        async with brokers.plain("homeassistant") as other:
            await other.publish("rouse/v1/agents/home/requests", b"{}", qos=1)
        assert (await heard(hub)).keys() == {"rouse/v1/agents/home/requests"}


async def test_without_the_houses_certificate_nobody_speaks(brokers: Brokers, attic: Member, tmp_path: Path) -> None:
    other = tmp_path / "other-house"
    async with embedded(other) as elsewhere:
        stranger = elsewhere.join("attic")
        trusted = attic.identity.trusted
        foreign = Member("attic", attic.password, Identity(stranger.identity.chain, stranger.identity.key, trusted))
        with pytest.raises(aiomqtt.MqttError):
            async with brokers.client(foreign):
                pass
        # And the node is not taken in by a broker of another house.
        with pytest.raises(aiomqtt.MqttError):
            async with elsewhere.client(attic):
                pass
    # The account is worth nothing where no certificate is asked for, with the embedded broker.
    if brokers.kind == "embedded":
        with pytest.raises(aiomqtt.MqttError):
            async with brokers.plain("attic", attic.password):
                pass


async def test_home_assistant_may_come_with_a_certificate(brokers: Brokers, attic: Member) -> None:
    """It verifies the hub by its address, as any MQTT client does."""
    authority, key = brokers.offices.trust.authority, certificates.new_key()
    folder = brokers.folder / "homeassistant"
    folder.mkdir()
    for name, monitor in (("homeassistant", False), ("prometheus", True)):
        chain = authority.sign_client(key.public_key(), name=name, monitor=monitor, days=30)
        (folder / f"{name}.pem").write_bytes(chain)
    (folder / "key").write_bytes(certificates.key_pem(key))
    await brokers.noticed()
    password = brokers.offices.own["homeassistant"].password
    assert isinstance(password, str)

    def client(certificate: str, user: str) -> aiomqtt.Client:
        context = ssl.create_default_context(cadata=authority.ca_pem.decode())
        context.load_cert_chain(folder / f"{certificate}.pem", folder / "key")
        port = brokers.nodes_port
        return aiomqtt.Client("127.0.0.1", port, username=user, password=password, tls_context=context, timeout=5)

    async with client("homeassistant", "homeassistant") as house, brokers.client(attic) as node:
        await house.subscribe("rouse/#", qos=1)
        await node.publish("rouse/v1/nodes/attic/status", ONLINE, qos=1)
        assert (await heard(house)).keys() == {"rouse/v1/nodes/attic/status"}
    # A certificate for another purpose opens nothing at the broker.
    with suppress(aiomqtt.MqttError):
        async with client("prometheus", "prometheus") as other, brokers.client(attic) as node:
            await other.subscribe("#", qos=1)
            await node.publish("rouse/v1/nodes/attic/status", ONLINE, qos=1)
            assert await heard(other) == {}


async def test_a_node_that_is_let_go_is_out_and_another_one_comes_in(brokers: Brokers, attic: Member) -> None:
    async with brokers.plain("homeassistant") as observer:
        await observer.subscribe("rouse/#", qos=1)
        try:
            async with brokers.client(attic) as node:
                await node.publish("rouse/v1/nodes/attic/status", ONLINE, qos=1)
                assert (await heard(observer)).keys() == {"rouse/v1/nodes/attic/status"}
                brokers.offices.nodes.remove("attic")
                brokers.offices.trust.authority.revoke("attic")
                await brokers.noticed()
                async with asyncio.timeout(5):
                    await node.publish("rouse/v1/nodes/attic/energy", b"{}", qos=1)
        except (aiomqtt.MqttError, TimeoutError):
            pass
        assert "rouse/v1/nodes/attic/energy" not in await heard(observer)
        with pytest.raises(aiomqtt.MqttError):
            async with brokers.client(attic) as node:
                await node.publish("rouse/v1/nodes/attic/status", ONLINE, qos=1)
        cellar = brokers.join("cellar")
        await brokers.noticed()
        async with brokers.client(cellar) as node:
            await node.publish("rouse/v1/nodes/cellar/status", ONLINE, qos=1)
            assert "rouse/v1/nodes/cellar/status" in await heard(observer)


async def test_a_revoked_certificate_is_refused_though_the_account_is_there(brokers: Brokers, attic: Member) -> None:
    async with brokers.client(attic):
        pass
    brokers.offices.trust.authority.revoke("attic")
    await brokers.noticed()
    with pytest.raises(aiomqtt.MqttError):
        async with brokers.client(attic) as node:
            await node.publish("rouse/v1/nodes/attic/status", ONLINE, qos=1)


async def test_after_another_ca_both_kinds_of_nodes_get_in(brokers: Brokers, attic: Member) -> None:
    """One that knows the old CA alone, and one that was given the new one."""
    authority = brokers.offices.trust.authority
    authority.rotate()
    await brokers.noticed()
    assert "BEGIN CERTIFICATE" in attic.identity.trusted
    assert attic.identity.trusted != authority.ca_pem.decode()
    cellar = brokers.join("cellar")
    await brokers.noticed()
    newest = authority.ca_pem.decode().split("-----END CERTIFICATE-----\n")[0] + "-----END CERTIFICATE-----\n"
    alone = Member("cellar", cellar.password, Identity(cellar.identity.chain, cellar.identity.key, newest))
    for member in (attic, cellar, alone):
        async with brokers.client(member) as node:
            await node.publish(f"rouse/v1/nodes/{member.name}/status", ONLINE, qos=1)
    authority.revoke("attic")
    await brokers.noticed()
    with pytest.raises(aiomqtt.MqttError):
        async with brokers.client(attic) as node:
            await node.publish("rouse/v1/nodes/attic/status", ONLINE, qos=1)
    authority.rotate(at_once=True)
    await brokers.noticed()
    with pytest.raises(aiomqtt.MqttError):
        async with brokers.client(cellar) as node:
            await node.publish("rouse/v1/nodes/cellar/status", ONLINE, qos=1)


async def test_the_hubs_certificate_is_of_no_use_to_somebody_who_expects_a_node(
    attic: Member, brokers: Brokers
) -> None:
    wrong = client_context(attic.identity, expected=f"other.{HUB_NAME}")
    client = aiomqtt.Client(
        "127.0.0.1",
        brokers.nodes_port,
        username="attic",
        password=attic.password,
        identifier="rouse-node-attic",
        tls_context=wrong,
        timeout=5,
    )
    with pytest.raises(aiomqtt.MqttError, match=r"(?i)hostname"):
        async with client:
            pass
