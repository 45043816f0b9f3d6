import json
from typing import Any

import pytest
from fake_hub import Broker, FakeHub, golden
from homeassistant.components.update.const import DATA_COMPONENT
from homeassistant.const import STATE_UNAVAILABLE, STATE_UNKNOWN
from homeassistant.core import HomeAssistant, State
from homeassistant.exceptions import HomeAssistantError
from pytest_homeassistant_custom_component.typing import MqttMockHAClient

ENTITY = "update.attic_system"
TOPIC = golden("node_update_available")["topic"]


@pytest.fixture
async def node(hass: HomeAssistant, hub: FakeHub) -> FakeHub:
    """A hub with a node that runs the image and knows of a newer version."""
    hub.add_node()
    hub.say_golden("node_update_available")
    await hass.async_block_till_done()
    return hub


def state(hass: HomeAssistant) -> State:
    found = hass.states.get(ENTITY)
    assert found
    return found


async def install(hass: HomeAssistant, **more: Any) -> None:
    await hass.services.async_call("update", "install", {"entity_id": ENTITY, **more}, blocking=True)


def commands(client: MqttMockHAClient) -> list[dict[str, Any]]:
    """Return what was asked for, without the commands' ids."""
    sent = [json.loads(call.args[1]) for call in client.async_publish.mock_calls if call.args[0] == f"{TOPIC}/commands"]
    assert all(len(command.pop("id")) == 32 for command in sent)
    return sent


@pytest.mark.usefixtures("node")
async def test_a_newer_version(hass: HomeAssistant) -> None:
    found = state(hass)
    assert found.state == "on"
    attributes = {
        "installed_version": "0.1.0",
        "latest_version": "0.2.0",
        "in_progress": False,
        "update_percentage": None,
        "release_url": "https://example.org/rouse/0.2.0",
        "release_summary": "version 0.2.0 can be installed",
        "title": "Rouse",
        "device_class": "firmware",
        "phase": "idle",
    }
    assert attributes.items() <= found.attributes.items()


async def test_a_node_without_the_image_has_no_update(hass: HomeAssistant, hub: FakeHub) -> None:
    hub.add_node()
    await hass.async_block_till_done()
    assert hass.states.get(ENTITY) is None

    hub.say_golden("node_update_available")
    await hass.async_block_till_done()
    assert state(hass).state == "on"

    hub.say(TOPIC, "", retain=False)
    await hass.async_block_till_done()
    assert state(hass).state == STATE_UNAVAILABLE


async def test_nobody_has_looked_yet(hass: HomeAssistant, node: FakeHub) -> None:
    node.say_golden("node_update_available", latest=None)
    await hass.async_block_till_done()
    assert state(hass).state == STATE_UNKNOWN


@pytest.mark.parametrize(("latest", "expected"), [("0.1.0", "off"), ("0.1.0.1", "on"), ("0.2.0~rc1", "on")])
async def test_the_node_compares_versions(hass: HomeAssistant, node: FakeHub, latest: str, expected: str) -> None:
    node.say_golden("node_update_available", latest=latest)
    await hass.async_block_till_done()
    assert state(hass).state == expected


async def test_progress(hass: HomeAssistant, node: FakeHub) -> None:
    node.say_golden("node_update_downloading")
    await hass.async_block_till_done()
    assert state(hass).attributes["in_progress"] is True
    assert state(hass).attributes["update_percentage"] == 25.0
    assert state(hass).attributes["release_summary"] == "rouse_0.2.0_amd64.efi"


async def test_a_look_for_updates_is_no_update(hass: HomeAssistant, node: FakeHub) -> None:
    node.say_golden("node_update_available", state="checking")
    await hass.async_block_till_done()
    assert state(hass).attributes["in_progress"] is False


async def test_a_node_that_restarts_is_still_being_updated(hass: HomeAssistant, node: FakeHub) -> None:
    node.say_golden("node_update_downloading", state="rebooting", progress=0.9)
    node.say_golden("node_status", state="offline")
    await hass.async_block_till_done()
    assert state(hass).attributes["in_progress"] is True

    node.say_golden("node_update_available", installed="0.2.0")
    await hass.async_block_till_done()
    assert state(hass).state == STATE_UNAVAILABLE

    node.say_golden("node_status", state="online")
    await hass.async_block_till_done()
    assert state(hass).state == "off"


async def test_a_version_that_did_not_come_up_says_why(hass: HomeAssistant, node: FakeHub) -> None:
    node.say_golden("node_update_rolled_back")
    await hass.async_block_till_done()
    found = state(hass)
    assert found.state == "on"
    assert found.attributes["phase"] == "rolled_back"
    assert found.attributes["in_progress"] is False
    assert "the expert small is gone" in found.attributes["release_summary"]

    node.say_golden("node_update_rolled_back", error="x" * 1000)
    await hass.async_block_till_done()
    assert len(state(hass).attributes["release_summary"]) == 255


@pytest.mark.usefixtures("node")
async def test_install(hass: HomeAssistant, mqtt_mock: MqttMockHAClient) -> None:
    await install(hass)
    assert commands(mqtt_mock) == [{"action": "install", "version": "0.2.0", "downgrade": False}]


@pytest.mark.usefixtures("node")
async def test_install_of_an_older_version(hass: HomeAssistant, mqtt_mock: MqttMockHAClient) -> None:
    await install(hass, version="0.0.9")
    assert commands(mqtt_mock) == [{"action": "install", "version": "0.0.9", "downgrade": True}]


async def test_install_on_a_node_that_sleeps(hass: HomeAssistant, node: FakeHub, mqtt_mock: MqttMockHAClient) -> None:
    entity = hass.data[DATA_COMPONENT].get_entity(ENTITY)
    assert entity
    node.say_golden("node_status", state="offline")
    await hass.async_block_till_done()
    with pytest.raises(HomeAssistantError) as caught:
        await entity.async_install(None, backup=False)
    assert caught.value.translation_key == "node_offline"
    assert commands(mqtt_mock) == []


async def test_one_update_at_a_time(hass: HomeAssistant, node: FakeHub, mqtt_mock: MqttMockHAClient) -> None:
    node.say_golden("node_update_downloading")
    await hass.async_block_till_done()
    entity = hass.data[DATA_COMPONENT].get_entity(ENTITY)
    assert entity
    with pytest.raises(HomeAssistantError) as caught:
        await entity.async_install(None, backup=False)
    assert caught.value.translation_key == "update_running"
    assert commands(mqtt_mock) == []


@pytest.mark.usefixtures("node")
async def test_install_without_the_broker(hass: HomeAssistant, broker: Broker, mqtt_mock: MqttMockHAClient) -> None:
    entity = hass.data[DATA_COMPONENT].get_entity(ENTITY)
    assert entity
    mqtt_mock.async_publish.side_effect = HomeAssistantError("not connected")
    with pytest.raises(HomeAssistantError) as caught:
        await entity.async_install(None, backup=False)
    assert caught.value.translation_key == "mqtt_disconnected"
    broker.disconnect()
    await hass.async_block_till_done()
    assert state(hass).state == STATE_UNAVAILABLE
