from datetime import timedelta
from typing import Any

import pytest
from fake_hub import Broker, FakeHub, golden
from freezegun.api import FrozenDateTimeFactory
from homeassistant.const import STATE_UNAVAILABLE, STATE_UNKNOWN, EntityCategory
from homeassistant.core import HomeAssistant, State
from homeassistant.helpers import entity_registry as er
from homeassistant.util import dt as dt_util
from pytest_homeassistant_custom_component.common import MockConfigEntry

CONNECTIVITY = "binary_sensor.attic_connectivity"
CPU = "sensor.attic_processor_use"
EXPERT = "sensor.attic_expert_small"
TEMPERATURE = "sensor.attic_processor_temperature"
TELEMETRY = golden("node_telemetry")


@pytest.fixture
async def node(hass: HomeAssistant, hub: FakeHub) -> FakeHub:
    """A hub with a node that has reported everything."""
    hub.add_node()
    await hass.async_block_till_done()
    return hub


def state(hass: HomeAssistant, entity_id: str) -> State:
    found = hass.states.get(entity_id)
    assert found, entity_id
    return found


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize(
    ("entity_id", "value", "attributes"),
    [
        (CPU, "25.0", {"unit_of_measurement": "%", "state_class": "measurement"}),
        ("sensor.attic_memory_use", "50.0", {"unit_of_measurement": "%"}),
        ("sensor.attic_model_storage_use", "75.0", {"unit_of_measurement": "%"}),
        (TEMPERATURE, "48.0", {"unit_of_measurement": "°C", "device_class": "temperature"}),
        ("sensor.attic_active_requests", "1", {"unit_of_measurement": "requests"}),
        ("sensor.attic_queued_requests", "0", {"unit_of_measurement": "requests"}),
        ("sensor.attic_generated_tokens", "12345", {"state_class": "total_increasing"}),
        (CONNECTIVITY, "on", {"device_class": "connectivity"}),
        (
            EXPERT,
            "ready",
            {"model": "SmolLM2-135M-Instruct.Q4_1", "context": 4096, "error": None, "device_class": "enum"},
        ),
    ],
)
async def test_readings(hass: HomeAssistant, entity_id: str, value: str, attributes: dict[str, Any]) -> None:
    found = state(hass, entity_id)

    assert found.state == value
    assert attributes.items() <= found.attributes.items()


async def test_last_boot_does_not_wander(
    hass: HomeAssistant, node: FakeHub, entry: MockConfigEntry, freezer: FrozenDateTimeFactory
) -> None:
    er.async_get(hass).async_update_entity("sensor.attic_last_boot", disabled_by=None)
    await hass.config_entries.async_reload(entry.entry_id)
    node.add_node()
    await hass.async_block_till_done()
    before = state(hass, "sensor.attic_last_boot").state
    booted = dt_util.parse_datetime(before)
    assert booted
    assert abs(dt_util.utcnow() - booted - timedelta(seconds=86400.5)) < timedelta(seconds=2)

    freezer.tick(30)
    node.say_golden("node_telemetry", uptime=86430.5 + 1.4)
    await hass.async_block_till_done()
    assert state(hass, "sensor.attic_last_boot").state == before

    node.say_golden("node_telemetry", uptime=10)
    await hass.async_block_till_done()
    assert state(hass, "sensor.attic_last_boot").state > before


@pytest.mark.usefixtures("node")
async def test_categories_and_defaults(hass: HomeAssistant, entry: MockConfigEntry) -> None:
    entities = {
        found.entity_id: found for found in er.async_entries_for_config_entry(er.async_get(hass), entry.entry_id)
    }
    diagnostic = {key for key, found in entities.items() if found.entity_category is EntityCategory.DIAGNOSTIC}
    disabled = {key for key, found in entities.items() if found.disabled_by}

    assert diagnostic == {
        CONNECTIVITY,
        CPU,
        TEMPERATURE,
        "sensor.attic_last_boot",
        "sensor.attic_memory_use",
        "sensor.attic_model_storage_use",
    }
    assert disabled == {"sensor.attic_last_boot"}
    assert len({found.unique_id for found in entities.values()}) == len(entities) == 15


async def test_temperature_only_where_there_is_one(hass: HomeAssistant, hub: FakeHub) -> None:
    hub.say_golden("node_announcement")
    hub.say_golden("node_status", state="online")
    hub.say_golden("node_telemetry", temperature=None)
    await hass.async_block_till_done()
    assert state(hass, CPU).state == "25.0"
    assert hass.states.get(TEMPERATURE) is None

    hub.say_golden("node_telemetry")
    await hass.async_block_till_done()
    assert state(hass, TEMPERATURE).state == "48.0"

    hub.say_golden("node_telemetry", temperature=None)
    await hass.async_block_till_done()
    assert state(hass, TEMPERATURE).state == STATE_UNKNOWN


async def test_readings_wait_for_telemetry(hass: HomeAssistant, hub: FakeHub) -> None:
    hub.say_golden("node_announcement")
    hub.say_golden("node_status", state="online")
    await hass.async_block_till_done()
    assert state(hass, CPU).state == STATE_UNKNOWN

    hub.say_golden("node_telemetry")
    hub.say(TELEMETRY["topic"], "", retain=False)
    await hass.async_block_till_done()
    assert state(hass, CPU).state == STATE_UNKNOWN


async def test_an_unannounced_node_is_nothing_yet(hass: HomeAssistant, hub: FakeHub) -> None:
    hub.say_golden("node_telemetry")
    hub.say_golden("node_status", state="online")
    hub.say_golden("expert_status_ready")
    await hass.async_block_till_done()
    assert hass.states.get(CPU) is None

    hub.say_golden("node_announcement")
    await hass.async_block_till_done()
    assert state(hass, CPU).state == "25.0"
    assert state(hass, EXPERT).state == "ready"


async def test_telemetry_updates(hass: HomeAssistant, node: FakeHub) -> None:
    node.say_golden("node_telemetry", cpu=1, generated_tokens=20000)
    await hass.async_block_till_done()

    assert state(hass, CPU).state == "100.0"
    assert state(hass, "sensor.attic_generated_tokens").state == "20000"


async def test_an_expert_that_fails_says_why(hass: HomeAssistant, node: FakeHub) -> None:
    node.say_golden("expert_status_failed")
    await hass.async_block_till_done()
    assert state(hass, EXPERT).state == "failed"
    assert state(hass, EXPERT).attributes["error"] == "the model file is not a GGUF file"

    node.say_golden("expert_status_failed", error="x" * 100_000)
    await hass.async_block_till_done()
    assert len(state(hass, EXPERT).attributes["error"]) == 255


async def test_experts_come_and_go(hass: HomeAssistant, node: FakeHub) -> None:
    ready = golden("expert_status_ready")["payload"]
    node.say("rouse/v1/nodes/attic/experts/large", {**ready, "expert": "large", "state": "starting"})
    await hass.async_block_till_done()
    assert state(hass, "sensor.attic_expert_large").state == "starting"

    node.say("rouse/v1/nodes/attic/experts/large", "", retain=False)
    await hass.async_block_till_done()
    assert state(hass, "sensor.attic_expert_large").state == STATE_UNAVAILABLE
    assert state(hass, EXPERT).state == "ready"


async def test_a_sleeping_node_has_no_readings(hass: HomeAssistant, node: FakeHub) -> None:
    node.say_golden("node_status", state="offline")
    await hass.async_block_till_done()
    assert state(hass, CONNECTIVITY).state == "off"
    assert state(hass, CPU).state == state(hass, EXPERT).state == STATE_UNAVAILABLE

    node.say_golden("node_status", state="online")
    await hass.async_block_till_done()
    assert state(hass, CONNECTIVITY).state == "on"
    assert (state(hass, CPU).state, state(hass, EXPERT).state) == ("25.0", "ready")


async def test_nodes_outlive_the_hub(hass: HomeAssistant, node: FakeHub) -> None:
    node.go()
    await hass.async_block_till_done()

    assert state(hass, CPU).state == "25.0"


async def test_without_the_broker_nothing_is_known(hass: HomeAssistant, node: FakeHub, broker: Broker) -> None:
    broker.disconnect()
    await hass.async_block_till_done()
    for entity_id in (CONNECTIVITY, CPU, EXPERT):
        assert state(hass, entity_id).state == STATE_UNAVAILABLE

    broker.connect()
    node.say_golden("node_status", state="online")
    await hass.async_block_till_done()
    assert state(hass, CONNECTIVITY).state == "on"
    assert (state(hass, CPU).state, state(hass, EXPERT).state) == ("25.0", "ready")


async def test_a_node_that_left_while_the_broker_was_away(hass: HomeAssistant, node: FakeHub, broker: Broker) -> None:
    broker.disconnect()
    broker.connect()
    await hass.async_block_till_done()

    assert node
    assert state(hass, CONNECTIVITY).state == "off"


async def test_nodes_come_and_go(hass: HomeAssistant, node: FakeHub) -> None:
    topic = golden("node_announcement")["topic"]
    node.say(topic, "", retain=False)
    await hass.async_block_till_done()
    for entity_id in (CONNECTIVITY, CPU, EXPERT):
        assert state(hass, entity_id).state == STATE_UNAVAILABLE

    node.add_node()
    await hass.async_block_till_done()
    assert state(hass, CONNECTIVITY).state == "on"
    assert (state(hass, CPU).state, state(hass, EXPERT).state) == ("25.0", "ready")


async def test_a_second_node(hass: HomeAssistant, node: FakeHub) -> None:
    announcement = {**golden("node_announcement")["payload"], "node": "cellar", "name": "Cellar"}
    node.say("rouse/v1/nodes/cellar/announcement", announcement)
    node.say("rouse/v1/nodes/cellar/status", {"state": "online"})
    node.say("rouse/v1/nodes/cellar/telemetry", {**TELEMETRY["payload"], "cpu": 0.1})
    await hass.async_block_till_done()

    assert state(hass, "sensor.cellar_processor_use").state == "10.0"
    assert state(hass, CPU).state == "25.0"
