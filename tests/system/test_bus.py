"""The bus client on real brokers."""

import asyncio
import itertools
import logging
import sys
from collections.abc import Mapping

import aiomqtt
import pytest

from appliance.bus.client import Bus
from appliance.bus.errors import BusUnavailableError
from appliance.bus.messages import Presence, ReplyText
from appliance.bus.topics import CHAT_REQUEST, NODE_STATUS, REPLY
from tests.system.client import Inbox
from tests.system.conftest import PASSWORDS, RunningBroker

pytestmark = pytest.mark.broker


async def test_presence_is_online_while_connected_and_offline_after_leaving(broker: RunningBroker) -> None:
    inbox = Inbox()
    observer = broker.bus("observer")
    observer.subscribe(NODE_STATUS, inbox)
    async with observer:
        await observer.wait_connected(5)
        node = Bus(broker.connection(), identifier="node", presence=(NODE_STATUS, {"node": "attic"}))
        async with node:
            await node.wait_connected(5)
            await inbox.wait_for(1)
        await inbox.wait_for(2)
    assert [(message.state, levels["node"]) for message, levels in inbox.messages] == [
        ("online", "attic"),
        ("offline", "attic"),
    ]


NODE_PROGRAM = """
import asyncio, sys
from appliance.bus.client import Bus
from appliance.bus.connection import Connection
from appliance.bus.topics import NODE_STATUS

async def main():
    connection = Connection("127.0.0.1", int(sys.argv[1]), "rouse", sys.stdin.readline().strip())
    async with Bus(connection, identifier="node", presence=(NODE_STATUS, {"node": "attic"})):
        await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_the_last_will_speaks_for_a_node_that_is_killed(broker: RunningBroker) -> None:
    inbox = Inbox()
    observer = broker.bus("observer")
    observer.subscribe(NODE_STATUS, inbox)
    async with observer:
        await observer.wait_connected(5)
        node = await asyncio.create_subprocess_exec(
            sys.executable, "-c", NODE_PROGRAM, str(broker.port), stdin=asyncio.subprocess.PIPE
        )
        try:
            assert node.stdin is not None
            node.stdin.write(PASSWORDS["rouse"].encode() + b"\n")
            await inbox.wait_for(1)
        finally:
            node.kill()
            await node.wait()
        await inbox.wait_for(2)
    assert inbox.messages[1] == (Presence(state="offline"), {"node": "attic"})


async def test_retained_state_reaches_a_late_subscriber_even_after_the_broker_forgot_it(
    broker: RunningBroker,
) -> None:
    node = Bus(broker.connection(), identifier="node", presence=(NODE_STATUS, {"node": "attic"}))
    async with node:
        await node.wait_connected(5)
        await broker.stop()
        await broker.start()
        await asyncio.sleep(0)
        inbox = Inbox()
        observer = broker.bus("observer")
        observer.subscribe(NODE_STATUS, inbox)
        async with observer:
            await inbox.wait_for(1, seconds=20)
    assert inbox.messages[0] == (Presence(state="online"), {"node": "attic"})


async def test_a_broker_restart_in_the_middle_of_a_stream_loses_nothing_that_was_taken(
    broker: RunningBroker,
) -> None:
    inbox = Inbox()
    receiver = broker.bus("receiver")
    receiver.subscribe(REPLY, inbox, client="house")
    sender = broker.bus("sender")
    async with receiver, sender:
        await receiver.wait_connected(5)
        await sender.wait_connected(5)

        async def send(first: int, last: int) -> None:
            for seq in range(first, last):
                await sender.publish(
                    REPLY, ReplyText(id="request-1", seq=seq, text=f"{seq} "), client="house", timeout=30
                )

        await send(0, 20)
        await inbox.wait_for(20)
        restart = asyncio.create_task(broker.stop())
        await restart
        stream = asyncio.create_task(send(20, 40))
        await asyncio.sleep(0.5)
        assert not stream.done(), "messages can't be taken while the broker is away"
        await broker.start()
        await stream
        await receiver.wait_connected(20)
        await sender.publish(REPLY, ReplyText(id="request-1", seq=40, text="end"), client="house")
        async with asyncio.timeout(10):
            while inbox.messages[-1][0].seq != 40:
                await asyncio.sleep(0.01)
    seen = [message.seq for message, _ in inbox.messages]
    assert seen[:20] == list(range(20))
    assert seen == sorted(seen), "the order holds"
    assert seen[-1] == 40


async def test_no_message_is_lost_while_others_come_and_go(broker: RunningBroker) -> None:
    inbox = Inbox()
    receiver = broker.bus("receiver")
    receiver.subscribe(REPLY, inbox, client="house")
    levels = REPLY.at(client="house").split("/")

    async def come_and_go(number: int) -> None:
        for turn in range(5):
            async with _raw(broker) as visitor:
                for topic in range(10):
                    await visitor.subscribe(f"visitors/{number}/{turn}/{topic}")

    async with _raw(broker) as observer, broker.bus("sender") as sender:
        # Many subscribers of one message, and the receiver after them all.
        for wildcards in itertools.product(*(("+", level) for level in levels[:4])):
            await observer.subscribe("/".join((*wildcards, levels[-1])), qos=0)
        async with receiver:
            await receiver.wait_connected(5)
            visits = asyncio.gather(*(come_and_go(number) for number in range(4)))
            sent = 0
            while not visits.done() or sent < 100:
                await sender.publish(REPLY, ReplyText(id="request-1", seq=sent, text="x"), client="house")
                sent += 1
            await visits
            await inbox.wait_for(sent)
    assert [message.seq for message, _ in inbox.messages] == list(range(sent))


async def test_publishing_without_a_broker_says_so_in_time(broker: RunningBroker) -> None:
    await broker.stop()
    async with broker.bus("sender") as bus:
        with pytest.raises(BusUnavailableError, match=r"did not take a message within 0\.3 s"):
            await bus.publish(NODE_STATUS, Presence(state="online"), node="attic", timeout=0.3)
        with pytest.raises(BusUnavailableError, match=r"no MQTT broker answers at 127\.0\.0\.1"):
            await bus.wait_connected(0.1)
    await broker.start()


async def test_a_malformed_payload_is_logged_once_with_its_topic_and_dropped(
    broker: RunningBroker, caplog: pytest.LogCaptureFixture
) -> None:
    inbox = Inbox()
    bus = broker.bus("receiver")
    bus.subscribe(CHAT_REQUEST, inbox, agent="home")
    topic = CHAT_REQUEST.at(agent="home")
    with caplog.at_level(logging.WARNING, "appliance.bus.client"):
        async with bus, _raw(broker) as house:
            await bus.wait_connected(5)
            for payload in (b"", b"{", b"\xff\xfe", b"[1]", b'{"id": 1}', b"null", b"x" * 1_000_001):
                await house.publish(topic, payload, qos=1)
            good = (
                b'{"id":"request-1","client":"house","deadline":1e10,"conversation_id":"c",'
                b'"messages":[{"role":"user","text":"hello"}]}'
            )
            await house.publish(topic, good, qos=1)
            await inbox.wait_for(1)
    assert [message.id for message, _ in inbox.messages] == ["request-1"]
    lines = [record.getMessage() for record in caplog.records if "malformed" in record.getMessage()]
    assert len(lines) == 1
    assert topic in lines[0]


async def test_a_handler_that_fails_does_not_end_the_connection(broker: RunningBroker) -> None:
    inbox = Inbox()

    async def fail(message: Presence | None, levels: Mapping[str, str]) -> None:
        await inbox(message, levels)
        raise RuntimeError("a bug")

    receiver = broker.bus("receiver")
    receiver.subscribe(NODE_STATUS, fail)
    async with receiver, broker.bus("sender") as sender:
        await receiver.wait_connected(5)
        await sender.publish(NODE_STATUS, Presence(state="online"), node="attic")
        await sender.publish(NODE_STATUS, Presence(state="offline"), node="attic")
        await inbox.wait_for(2)


@pytest.mark.parametrize(("user", "password"), [("rouse", "wrong"), ("nobody", "x"), ("rouse", "")])
async def test_strangers_stay_out(broker: RunningBroker, user: str, password: str) -> None:
    with pytest.raises(aiomqtt.MqttError, match=r"(?i)authori"):
        async with aiomqtt.Client("127.0.0.1", broker.port, username=user, password=password, timeout=5):
            pass


def _raw(broker: RunningBroker) -> aiomqtt.Client:
    access = broker.connection("homeassistant")
    return aiomqtt.Client(access.host, access.port, username=access.username, password=access.password)
