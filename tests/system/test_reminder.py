"""The hub says again what the bus has forgotten of nodes that sleep, on real brokers."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from appliance.bus.client import Bus
from appliance.bus.messages import ExpertStatus, Hardware, NodeAnnouncement, Presence
from appliance.bus.power_messages import NodePower, PowerState
from appliance.bus.topics import EXPERT_STATUS, NODE_ANNOUNCEMENT, NODE_POWER, NODE_STATUS, Topic
from appliance.power import memory
from appliance.power.memory import Reminder
from appliance.power.nodes import KnownNode, NodeBook
from tests.system.conftest import RunningBroker

pytestmark = pytest.mark.broker

HARDWARE = Hardware(architecture="x86_64", cpu="a processor", cores=2, memory_bytes=2**30)
ONLINE, OFFLINE = Presence(state="online"), Presence(state="offline")
STATUS, POWER = NODE_STATUS.at(node="attic"), NODE_POWER.at(node="attic")
TOPICS: tuple[Topic[Any], ...] = (NODE_STATUS, NODE_ANNOUNCEMENT, NODE_POWER, EXPERT_STATUS)


def power(state: PowerState, since: float = 1.0) -> NodePower:
    return NodePower(state=state, since=since)


def known(state: PowerState) -> KnownNode:
    return KnownNode(
        "attic",
        NodeAnnouncement(node="attic", name="Attic", version="1", roles=("expert",), hardware=HARDWARE),
        power(state),
        experts={"large": ExpertStatus(expert="large", node="attic", state="ready", url="http://10.0.0.2:9/v1")},
    )


@asynccontextmanager
async def late_listener(broker: RunningBroker) -> AsyncIterator[dict[str, Any]]:
    """What somebody who comes now finds on the bus, and hears later."""
    latest: dict[str, Any] = {}
    bus = broker.bus("late-listener")

    def noting(topic: Topic[Any]) -> Callable[..., Any]:
        async def note(message: Any, levels: Mapping[str, str]) -> None:
            latest[topic.at(**levels)] = message

        return note

    for topic in TOPICS:
        bus.subscribe(topic, noting(topic))
    async with bus:
        await bus.wait_connected(10)
        yield latest


async def until(condition: Callable[[], bool], latest: object) -> None:
    try:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(latest) from None


@asynccontextmanager
async def hub(broker: RunningBroker, node: KnownNode) -> AsyncIterator[Bus]:
    bus = broker.bus("hub")
    book = NodeBook(own="house")
    book.remember([node])
    book.attach(bus)
    reminder = Reminder(bus=bus, book=book)
    async with bus:
        task = asyncio.create_task(reminder.run())
        try:
            yield bus
            assert not task.done(), task.exception()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "RETAINED_SECONDS", 0.3)
    monkeypatch.setattr(memory, "RETURN_SECONDS", 0.5)


async def test_a_node_that_sleeps_is_told_of(broker: RunningBroker) -> None:
    node = known("asleep")
    async with hub(broker, node), late_listener(broker) as latest:
        await until(lambda: len(latest) == 4, latest)
    async with late_listener(broker) as latest:
        await until(lambda: len(latest) == 4, latest)
        assert latest == {
            STATUS: OFFLINE,
            POWER: node.power,
            NODE_ANNOUNCEMENT.at(node="attic"): node.announcement,
            EXPERT_STATUS.at(node="attic", expert="large"): node.experts["large"],
        }


async def test_a_node_that_was_awake_and_does_not_return_is_told_of_as_offline(broker: RunningBroker) -> None:
    async with hub(broker, known("awake")), late_listener(broker) as latest:
        await until(lambda: latest.get(STATUS) == OFFLINE and latest.get(POWER) == power("awake"), latest)


async def test_what_the_bus_knows_is_left_as_it_is(broker: RunningBroker) -> None:
    async with broker.bus("attic") as attic:
        await attic.publish(NODE_STATUS, ONLINE, node="attic")
        await attic.publish(NODE_POWER, power("awake", 2.0), node="attic")
        async with hub(broker, known("asleep")), late_listener(broker) as latest:
            await until(lambda: len(latest) >= 2, latest)
            await asyncio.sleep(1)
            assert latest[STATUS] == ONLINE
            assert latest[POWER] == power("awake", 2.0)


async def test_a_node_that_returns_at_that_very_moment_has_the_last_word(
    broker: RunningBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its message reaches the broker after the hub has looked and before the hub's own."""
    async with broker.bus("attic") as attic:
        await attic.wait_connected(10)
        returned = False
        publish = Bus.publish

        async def with_a_return(self: Bus, topic: Topic[Any], message: Any, **more: Any) -> None:
            nonlocal returned
            if topic is NODE_POWER and not returned and message.state == "asleep":
                returned = True
                await publish(attic, NODE_STATUS, ONLINE, node="attic")
                await publish(attic, NODE_POWER, power("awake", 2.0), node="attic")
            await publish(self, topic, message, **more)

        monkeypatch.setattr(Bus, "publish", with_a_return)
        async with hub(broker, known("asleep")), late_listener(broker) as latest:
            await until(lambda: returned and latest.get(POWER) == power("awake", 2.0), latest)
            await until(lambda: latest.get(STATUS) == ONLINE, latest)
            await asyncio.sleep(0.5)
            assert (latest[STATUS], latest[POWER]) == (ONLINE, power("awake", 2.0))


async def test_a_real_goodbye_later_is_not_taken_for_an_echo(broker: RunningBroker) -> None:
    async with hub(broker, known("asleep")), late_listener(broker) as latest:
        await until(lambda: latest.get(STATUS) == OFFLINE, latest)
        async with broker.bus("attic") as attic:
            await attic.publish(NODE_STATUS, ONLINE, node="attic")
            await attic.publish(NODE_STATUS, OFFLINE, node="attic")
        await until(lambda: latest.get(STATUS) == OFFLINE, latest)
        await asyncio.sleep(0.5)
        assert latest[STATUS] == OFFLINE
