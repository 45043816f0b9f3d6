"""A thousand random and mutated payloads on every topic of a running appliance."""

import asyncio
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import aiomqtt
import pytest

from appliance.bus.errors import MalformedMessageError
from appliance.bus.topics import (
    ALL,
    CERTIFICATE_REQUEST,
    CHAT_CANCEL,
    CHAT_REQUEST,
    EXPERT_STATUS,
    MAX_PAYLOAD_BYTES,
    NODE_ANNOUNCEMENT,
    NODE_ENERGY,
    NODE_POWER,
    NODE_STATUS,
    NODE_TELEMETRY,
    NODE_UPDATE,
    PAIRED_NODE,
    PAIRING_CLAIM,
    PAIRING_OFFER,
    PLUG_RESULT,
    POWER_COMMAND,
    WAKE_HINT,
    Topic,
)
from tests.faults.house import NODE, House
from tests.fuzzing import bodies, drawn

pytestmark = [pytest.mark.broker, pytest.mark.model, pytest.mark.asyncio(loop_scope="module")]

GOLDEN = Path(__file__).parents[1] / "contract" / "messages"
COUNT = 1000
REAL = {"node": NODE, "expert": "small", "agent": "home", "client": "somebody"}
STRANGE = {"node": "cellar", "expert": "other", "agent": "nobody", "client": "somebody"}
READ_BY_THE_HUB = (
    NODE_STATUS,
    NODE_ANNOUNCEMENT,
    NODE_TELEMETRY,
    NODE_POWER,
    NODE_ENERGY,
    NODE_UPDATE,
    EXPERT_STATUS,
    CHAT_REQUEST,
    CHAT_CANCEL,
    PAIRING_OFFER,
    PAIRING_CLAIM,
    PAIRED_NODE,
    CERTIFICATE_REQUEST,
    WAKE_HINT,
    POWER_COMMAND,
    PLUG_RESULT,
)
DEAD_URL = "http://127.0.0.1:9/v1"
GROWTH = 150 * 1024 * 1024
"""Bytes of memory that a process may have gained: 10,000 payloads in all, so no leak of each fits in."""


def goldens(topic: Topic[Any]) -> tuple[Any, ...]:
    """Return the topic's good payloads, to be mutated; none of them leads out of this machine."""
    files = [json.loads(path.read_text()) for path in sorted(GOLDEN.glob("*.json"))]
    found = tuple(file["payload"] for file in files if topic.parse(file["topic"]) is not None)
    assert found, topic.name
    for payload in found:
        if "deadline" in payload:
            payload["deadline"] = time.time() + 4
        if "url" in payload:
            payload["url"] = DEAD_URL
    return found


def is_malformed(topic: Topic[Any], name: str, payload: bytes) -> bool:
    if topic.retain and not payload:
        return False
    try:
        topic.decode(name, payload)
    except MalformedMessageError:
        return True
    return False


async def flood(house: House, topic: Topic[Any], number: int) -> set[str]:
    """Send payloads on a topic; return the names on which a malformed one was sent.

    What a node says of itself is believed, so a payload that happens to be good goes to a stranger's topic.
    """
    names = [topic.at(**{level: levels[level] for level in topic.parameters}) for levels in (REAL, STRANGE)]
    bad: set[str] = set()
    connection = house.client.bus._connection
    async with aiomqtt.Client(
        connection.host, connection.port, username=connection.username, password=connection.password
    ) as client:
        for payload in [*drawn(bodies(goldens(topic)), COUNT, number=number), b"x" * (MAX_PAYLOAD_BYTES + 1)]:
            malformed = is_malformed(topic, names[0], payload)
            for name in names if malformed or topic in (CHAT_REQUEST, CHAT_CANCEL) else names[1:]:
                await client.publish(name, payload, qos=0)
                if malformed:
                    bad.add(name)
        # The broker has taken all the others when it acknowledges this one.
        await client.publish(names[1], b"{", qos=1)
    return bad


async def test_a_thousand_payloads_on_every_topic(house: House) -> None:
    processes = {name: house.process(name) for name in ("hub", "node")} | {"expert": house.expert("small")}
    memory = {name: process.memory_info().rss for name, process in processes.items()}
    malformed = {topic.name: await flood(house, topic, number) for number, topic in enumerate(ALL)}

    await house.answers_on_the_bus("after-the-flood")
    await house.until_idle()
    for name, process in processes.items():
        assert process.is_running(), house.logs()
        assert process.memory_info().rss - memory[name] < GROWTH, name
        if name != "expert":
            assert "Traceback" not in house.log(name)

    logged = Counter(
        line.partition("not logged): ")[2].partition(":")[0]
        for line in house.log("hub").splitlines()
        if "dropped a malformed message" in line
    )
    expected = set().union(*(malformed[topic.name] for topic in READ_BY_THE_HUB))
    expected -= {topic.at(agent="nobody") for topic in (CHAT_REQUEST, CHAT_CANCEL)}
    assert logged == Counter(expected)
    assert await house.answers() == "small"


async def test_the_next_requests_are_answered_each_time(house: House) -> None:
    await asyncio.gather(*(house.answers_on_the_bus(f"good-request-{number}") for number in range(4)))
