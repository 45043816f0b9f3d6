import asyncio

import pytest
from fake_hub import AGENT, Broker, FakeHub, device, golden
from homeassistant.components import mqtt
from homeassistant.config_entries import ConfigEntry, ConfigEntryDisabler, ConfigEntryState
from homeassistant.const import STATE_UNAVAILABLE, STATE_UNKNOWN
from homeassistant.core import HomeAssistant
from homeassistant.helpers import device_registry as dr
from homeassistant.setup import async_setup_component
from pytest_homeassistant_custom_component.common import MockConfigEntry
from pytest_homeassistant_custom_component.typing import (
    MqttMockHAClient,
    WebSocketGenerator,
)


@pytest.fixture
def broker_entry(hass: HomeAssistant, bus: FakeHub) -> ConfigEntry:
    """The config entry of the MQTT integration."""
    assert bus
    [entry] = hass.config_entries.async_entries(mqtt.DOMAIN)
    return entry


async def test_without_mqtt_it_is_set_up_later(
    hass: HomeAssistant, broker: Broker, broker_entry: ConfigEntry, entry: MockConfigEntry
) -> None:
    broker.disconnect()
    await hass.config_entries.async_set_disabled_by(broker_entry.entry_id, ConfigEntryDisabler.USER)

    await hass.config_entries.async_setup(entry.entry_id)

    assert entry.state is ConfigEntryState.SETUP_RETRY
    assert entry.reason == "The MQTT integration is not set up, or the MQTT broker can't be reached"


async def test_it_waits_for_mqtt(hass: HomeAssistant, broker_entry: ConfigEntry, entry: MockConfigEntry) -> None:
    await hass.config_entries.async_unload(broker_entry.entry_id)
    setup = hass.async_create_task(hass.config_entries.async_setup(entry.entry_id))
    await asyncio.sleep(0.05)
    assert entry.state is ConfigEntryState.SETUP_IN_PROGRESS

    await hass.config_entries.async_setup(broker_entry.entry_id)

    assert await setup
    assert entry.state is ConfigEntryState.LOADED


async def test_few_subscriptions_made_once(
    hass: HomeAssistant, mqtt_mock: MqttMockHAClient, bus: FakeHub, entry: MockConfigEntry
) -> None:
    mqtt_mock.async_subscribe.reset_mock()
    await hass.config_entries.async_setup(entry.entry_id)
    bus.come()
    bus.add_node()
    await hass.async_block_till_done()

    assert sorted(call.args[0] for call in mqtt_mock.async_subscribe.call_args_list) == [
        "rouse/v1/agents/+/announcement",
        f"rouse/v1/clients/ha-{entry.entry_id.lower()}/replies",
        "rouse/v1/hub/+",
        "rouse/v1/nodes/#",
    ]


async def test_unload_and_load_again(hass: HomeAssistant, hub: FakeHub, entry: MockConfigEntry) -> None:
    assert hass.states.is_state(AGENT, STATE_UNKNOWN)

    assert await hass.config_entries.async_unload(entry.entry_id)
    assert entry.state is ConfigEntryState.NOT_LOADED
    assert hass.states.is_state(AGENT, STATE_UNAVAILABLE)
    hub.come()
    await hass.async_block_till_done()
    assert hass.states.is_state(AGENT, STATE_UNAVAILABLE), "nobody listens any more"

    assert await hass.config_entries.async_setup(entry.entry_id)
    await hass.async_block_till_done()
    hub.come()
    await hass.async_block_till_done()
    assert hass.states.is_state(AGENT, STATE_UNKNOWN)


async def test_devices(hass: HomeAssistant, hub: FakeHub, entry: MockConfigEntry) -> None:
    hub.add_node()
    await hass.async_block_till_done()

    hub_device = device(hass, entry, "hub-1")
    node = device(hass, entry, "hub-1/attic")

    assert hub_device
    assert (hub_device.name, hub_device.entry_type, hub_device.sw_version) == (
        "Rouse",
        dr.DeviceEntryType.SERVICE,
        "0.1.0",
    )
    assert node
    hardware = golden("node_announcement")["payload"]["hardware"]
    assert (node.name, node.model, node.hw_version) == ("Attic", hardware["cpu"], "x86_64")
    assert node.via_device_id == hub_device.id
    registered = dr.async_entries_for_config_entry(dr.async_get(hass), entry.entry_id)
    assert {found.id for found in registered} == {hub_device.id, node.id}


async def test_devices_follow_their_announcements(hass: HomeAssistant, hub: FakeHub, entry: MockConfigEntry) -> None:
    hub.add_node()
    hub.say_golden("hub_announcement", name="Home brain", version="0.2.0")
    hub.say_golden("node_announcement", name="Cellar", version="0.2.0")
    await hass.async_block_till_done()

    for identifier, name in (("hub-1", "Home brain"), ("hub-1/attic", "Cellar")):
        found = device(hass, entry, identifier)
        assert found
        assert (found.name, found.sw_version) == (name, "0.2.0")


async def test_only_a_stale_device_can_be_removed(
    hass: HomeAssistant, hass_ws_client: WebSocketGenerator, hub: FakeHub, entry: MockConfigEntry
) -> None:
    hub.add_node()
    await hass.async_block_till_done()
    assert await async_setup_component(hass, "config", {})
    client = await hass_ws_client(hass)
    hub_device = device(hass, entry, "hub-1")
    node = device(hass, entry, "hub-1/attic")
    assert hub_device
    assert node

    assert not (await client.remove_device(hub_device.id))["success"]
    assert not (await client.remove_device(node.id))["success"]

    hub.say(golden("node_announcement")["topic"], "", retain=False)
    await hass.async_block_till_done()
    assert (await client.remove_device(node.id))["success"]
    assert device(hass, entry, "hub-1/attic") is None

    hub.add_node()
    await hass.async_block_till_done()
    assert device(hass, entry, "hub-1/attic")
    assert hass.states.is_state("binary_sensor.attic_connectivity", "on")


async def test_no_device_goes_while_nothing_is_known(
    hass: HomeAssistant, hass_ws_client: WebSocketGenerator, hub: FakeHub, entry: MockConfigEntry
) -> None:
    hub.add_node()
    await hass.async_block_till_done()
    node = device(hass, entry, "hub-1/attic")
    assert node
    await hass.config_entries.async_unload(entry.entry_id)
    assert await async_setup_component(hass, "config", {})
    client = await hass_ws_client(hass)

    assert not (await client.remove_device(node.id))["success"]


async def test_it_logs_once_that_the_hub_went_and_came(
    hass: HomeAssistant, hub: FakeHub, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.clear()
    hub.go()
    hub.go()
    hub.come()
    hub.come()
    await hass.async_block_till_done()

    assert caplog.text.count("Hub hub-1 is offline") == 1
    assert caplog.text.count("Hub hub-1 is online") == 1
