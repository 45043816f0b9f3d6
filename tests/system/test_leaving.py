"""A client of the bus that leaves before its machine sleeps, and comes back."""

import asyncio
from collections.abc import Callable
from itertools import groupby

import pytest

from appliance.bus.client import SUSPICIOUS_LOSSES, Bus
from appliance.bus.messages import Presence
from appliance.bus.power_messages import NodePower
from appliance.bus.topics import NODE_POWER, NODE_STATUS
from tests.system.client import Inbox
from tests.system.conftest import RunningBroker

pytestmark = pytest.mark.broker


def leaving(broker: RunningBroker) -> Bus:
    return Bus(broker.connection(), identifier="attic", presence=(NODE_STATUS, {"node": "attic"}))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def test_it_is_offline_while_it_is_away_and_what_it_keeps_comes_with_it(broker: RunningBroker) -> None:
    presence, powers = Inbox(), Inbox()
    observer = broker.bus("observer", "homeassistant")
    observer.subscribe(NODE_STATUS, presence)
    observer.subscribe(NODE_POWER, powers)

    def said() -> list[Presence | None]:
        # Who subscribes at the moment of a retained message may get it twice.
        return [message for message, _ in groupby(message for message, _ in presence.messages)]

    async with observer, leaving(broker) as bus:
        await observer.wait_connected(10)
        await bus.wait_connected(10)
        await presence.wait_for(1)
        assert await bus.leave(5)
        await until(lambda: not bus.connected)
        await until(lambda: len(said()) == 2)
        await bus.keep(NODE_POWER, NodePower(state="awake", since=1.0), node="attic")
        await asyncio.sleep(0.5)
        assert not bus.connected, "it stays away"
        assert powers.messages == []
        bus.come_back()
        await powers.wait_for(1)
        await until(lambda: len(said()) == 3)
    assert said()[:3] == [
        Presence(state="online"),
        Presence(state="offline"),
        Presence(state="online"),
    ]


async def test_who_leaves_without_a_broker_does_not_appear_when_it_comes(broker: RunningBroker) -> None:
    await broker.stop()
    async with leaving(broker) as bus:
        await bus.leave(0.2)
        await broker.start()
        presence = Inbox()
        observer = broker.bus("observer", "homeassistant")
        observer.subscribe(NODE_STATUS, presence)
        async with observer:
            await observer.wait_connected(10)
            await asyncio.sleep(1)
            assert Presence(state="online") not in [message for message, _ in presence.messages][-1:]
            bus.come_back()
            await until(lambda: Presence(state="online") in [message for message, _ in presence.messages])


async def test_to_come_back_replaces_a_connection_that_may_be_dead(
    broker: RunningBroker, caplog: pytest.LogCaptureFixture
) -> None:
    async with leaving(broker) as bus:
        await bus.wait_connected(10)
        for _ in range(SUSPICIOUS_LOSSES + 1):
            before = bus._client
            bus.come_back()
            await until(lambda: bus._client is not None and bus._client is not before)  # noqa: B023 - it is awaited
            assert bus.connected
    assert "is there another of that name" not in caplog.text


async def test_what_changes_while_it_connects_is_not_lost(broker: RunningBroker) -> None:
    """Kept state that is replaced between its sending and the end of the connection's beginning."""
    powers = Inbox()
    observer = broker.bus("observer", "homeassistant")
    observer.subscribe(NODE_POWER, powers)
    async with observer:
        await observer.wait_connected(10)
        bus = leaving(broker)
        begin = bus._begin

        async def slowly(client: object) -> None:
            publish = client.publish  # type: ignore[attr-defined]

            async def replaced(*arguments: object, **more: object) -> None:
                await publish(*arguments, **more)
                if not bus._kept.get("rouse/v1/nodes/attic/power", (b"", 0))[0].count(b"asleep"):
                    await bus.keep(NODE_POWER, NodePower(state="asleep", since=2.0), node="attic")

            client.publish = replaced  # type: ignore[attr-defined]
            await begin(client)  # type: ignore[arg-type]
            client.publish = publish  # type: ignore[attr-defined]

        bus._begin = slowly  # type: ignore[method-assign]
        await bus.keep(NODE_POWER, NodePower(state="awake", since=1.0), node="attic")
        async with bus:
            await until(lambda: any(message.state == "asleep" for message, _ in powers.messages))


async def test_who_ends_while_it_connects_leaves_nothing_standing(broker: RunningBroker) -> None:
    presence, powers = Inbox(), Inbox()
    observer = broker.bus("observer", "homeassistant")
    observer.subscribe(NODE_STATUS, presence)
    observer.subscribe(NODE_POWER, powers)
    async with observer:
        await observer.wait_connected(10)
        bus = leaving(broker)
        await bus.keep(NODE_POWER, NodePower(state="awake", since=1.0), node="attic")
        async with bus:
            await presence.wait_for(1)
            # What is kept comes after the presence: most often it has not been sent when this ends.
            await bus.keep(NODE_POWER, NodePower(state="off", since=2.0), node="attic")
        await until(lambda: presence.messages[-1][0] == Presence(state="offline"))
        await until(lambda: bool(powers.messages) and powers.messages[-1][0].state == "off")
