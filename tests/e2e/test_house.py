"""Through Assist's pipeline, MQTT, the gateway and a model, and what happens when one of them goes."""

import asyncio
import os
import re
import signal

import pytest

from scripts.house.setup import EXPERT, own_entities
from tests.e2e.conftest import House

pytestmark = [pytest.mark.house, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(600)]

LIGHT = "light.kitchen_light"
QUESTION = "What is gravity?"
LONG = 180
"""Seconds for what takes a few on a machine that has nothing else to do."""


async def answers(house: House) -> bool:
    """Whether a question is answered."""
    answer = await house.assistant.assist(QUESTION)
    return answer.error is None and "gravity" in answer.text.lower()


async def test_a_wish_turns_the_light_on(house: House) -> None:
    assert await house.assistant.state(LIGHT) == "off"

    answer = await house.assistant.assist("Turn on the kitchen light")

    assert answer.error is None, answer.text
    assert answer.tools == ["intent__HassTurnOn"]
    assert await house.assistant.state(LIGHT) == "on"
    assert "kitchen light" in answer.text.lower()
    assert re.search(r"\bon\b", answer.text)


async def test_a_question_is_answered_piece_by_piece(house: House) -> None:
    answer = await house.assistant.assist(QUESTION)

    assert answer.error is None, answer.text
    assert "gravity" in answer.text.lower()
    assert answer.tools == []
    assert answer.chunks > 1
    assert answer.streamed.strip() == answer.text.strip()


async def test_every_entity_has_a_value(house: House) -> None:
    entities = await own_entities(house.assistant)

    assert {entity.partition(".")[0] for entity in entities} == {
        "binary_sensor",
        "conversation",
        "sensor",
        "switch",
    }
    async with asyncio.timeout(LONG):
        for entity in entities:
            while await house.assistant.wait_for_state(entity, seconds=LONG) == "unknown":
                await asyncio.sleep(0.1)


async def test_a_hub_that_stops_is_told_and_comes_back(house: House) -> None:
    await house.hub.stop()
    await house.assistant.wait_for_state(house.agent, "unavailable", seconds=LONG)
    answer = await house.assistant.assist(QUESTION)
    assert (answer.error, answer.text) == ("unknown", "The hub is offline")

    await house.hub.start()
    await house.assistant.wait_for_state(house.agent, seconds=LONG)
    assert await answers(house)


async def test_a_broker_that_stops_is_told_and_comes_back(house: House) -> None:
    await house.broker.stop()
    await house.assistant.wait_for_state(house.agent, "unavailable", seconds=LONG)
    await house.assistant.wait_for_state(EXPERT, "unavailable", seconds=LONG)
    answer = await house.assistant.assist(QUESTION)
    assert (answer.error, answer.text) == ("unknown", "Home Assistant is not connected to the MQTT broker")

    await house.broker.start()
    await house.assistant.wait_for_state(house.agent, seconds=LONG)
    await house.assistant.wait_for_state(EXPERT, "ready", seconds=LONG)
    assert await answers(house)


async def test_an_expert_that_dies_is_started_again(house: House) -> None:
    [expert] = house.experts()

    os.kill(expert, signal.SIGKILL)

    async with asyncio.timeout(LONG):
        while house.experts() in ([], [expert]):
            await asyncio.sleep(0.1)
        # The state is still that of the dead one until Home Assistant has heard of it.
        while not await answers(house):
            await asyncio.sleep(0.5)
    await house.assistant.wait_for_state(EXPERT, "ready", seconds=LONG)


async def test_home_assistant_found_no_fault_with_the_integration(house: House) -> None:
    """Runs last, when everything has happened."""
    log = re.sub(r"\x1b\[[0-9;]*m", "", house.log.read_text(errors="replace"))
    assert [line for line in log.splitlines() if "ERROR" in line and "custom_components.rouse" in line] == []
    assert "custom_components/rouse" not in log, "in a traceback"
