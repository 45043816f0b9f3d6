import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fake_hub import AGENT, Broker, FakeHub, golden
from homeassistant import config_entries
from homeassistant.components import mqtt
from homeassistant.config_entries import SOURCE_MQTT, SOURCE_USER, ConfigFlowResult
from homeassistant.const import CONF_LLM_HASS_API, CONF_PROMPT, CONF_TIMEOUT
from homeassistant.core import HomeAssistant
from homeassistant.data_entry_flow import FlowResultType, InvalidData
from homeassistant.helpers.service_info.mqtt import MqttServiceInfo
from pytest_homeassistant_custom_component.common import MockConfigEntry

from custom_components.rouse import config_flow
from custom_components.rouse.const import CONF_HINTS, CONF_HUB, DOMAIN

ANNOUNCEMENT = golden("hub_announcement")
DEFAULTS = {CONF_LLM_HASS_API: ["assist"], CONF_TIMEOUT: 60}


@pytest.fixture(autouse=True)
async def unload(hass: HomeAssistant) -> AsyncIterator[None]:
    yield
    for entry in hass.config_entries.async_entries(DOMAIN):
        await hass.config_entries.async_remove(entry.entry_id)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a hub little time to be found."""
    monkeypatch.setattr(config_flow, "DISCOVERY_TIMEOUT", 0.2)


async def discover(hass: HomeAssistant, payload: Any = ANNOUNCEMENT["payload"]) -> ConfigFlowResult:
    raw = payload if isinstance(payload, str) else json.dumps(payload)
    info = MqttServiceInfo(ANNOUNCEMENT["topic"], raw, 0, True, ANNOUNCEMENT["topic"], 0)
    return await hass.config_entries.flow.async_init(DOMAIN, context={"source": SOURCE_MQTT}, data=info)


async def start_by_hand(hass: HomeAssistant) -> ConfigFlowResult:
    result = await hass.config_entries.flow.async_init(DOMAIN, context={"source": SOURCE_USER})
    assert result["type"] is FlowResultType.FORM
    assert (result["step_id"], result["errors"]) == ("user", {})
    return result


async def submit(hass: HomeAssistant, result: ConfigFlowResult) -> ConfigFlowResult:
    return await hass.config_entries.flow.async_configure(result["flow_id"], {})


def assert_created(result: ConfigFlowResult) -> None:
    assert result["type"] is FlowResultType.CREATE_ENTRY
    assert result["title"] == "Rouse"
    assert result["data"] == {CONF_HUB: "hub-1"}
    assert result["options"] == DEFAULTS
    assert result["result"].unique_id == "hub-1"


@pytest.mark.usefixtures("bus")
async def test_discovery(hass: HomeAssistant) -> None:
    result = await discover(hass)
    assert result["type"] is FlowResultType.FORM
    assert result["step_id"] == "confirm"
    assert result["description_placeholders"] == {"name": "Rouse"}
    [flow] = hass.config_entries.flow.async_progress()
    assert flow["context"]["title_placeholders"] == {"name": "Rouse"}

    assert_created(await submit(hass, result))


async def test_an_announcement_on_the_bus_starts_discovery(hass: HomeAssistant, bus: FakeHub) -> None:
    await hass.async_block_till_done()

    bus.say_golden("hub_announcement")
    await hass.async_block_till_done(wait_background_tasks=True)

    [flow] = hass.config_entries.flow.async_progress_by_handler(DOMAIN)
    assert flow["step_id"] == "confirm"


@pytest.mark.usefixtures("bus")
async def test_a_nameless_hub_has_its_slug_for_a_name(hass: HomeAssistant) -> None:
    result = await discover(hass, {**ANNOUNCEMENT["payload"], "name": ""})

    result = await submit(hass, result)

    assert result["title"] == "hub-1"


@pytest.mark.usefixtures("bus")
@pytest.mark.parametrize(
    "payload",
    [
        "no JSON",
        "[]",
        {"hub": "hub-1"},
        {**ANNOUNCEMENT["payload"], "hub": "Not a slug"},
        {**ANNOUNCEMENT["payload"], "name": None},
        {**ANNOUNCEMENT["payload"], "name": "x" * 1_000_000},
    ],
)
async def test_a_malformed_announcement_is_refused(hass: HomeAssistant, payload: Any) -> None:
    result = await discover(hass, payload)

    assert result["type"] is FlowResultType.ABORT
    assert result["reason"] == "malformed_announcement"
    assert result["description_placeholders"]["error"]


@pytest.mark.usefixtures("bus")
async def test_a_withdrawn_announcement_is_no_hub(hass: HomeAssistant) -> None:
    result = await discover(hass, "")

    assert (result["type"], result["reason"]) == (FlowResultType.ABORT, "hub_gone")


@pytest.mark.usefixtures("hub")
async def test_discovery_of_a_known_hub(hass: HomeAssistant) -> None:
    result = await discover(hass)

    assert (result["type"], result["reason"]) == (FlowResultType.ABORT, "already_configured")


@pytest.mark.usefixtures("bus")
async def test_discovery_while_it_is_set_up(hass: HomeAssistant) -> None:
    await discover(hass)

    result = await discover(hass)

    assert (result["type"], result["reason"]) == (FlowResultType.ABORT, "already_in_progress")


async def test_by_hand(hass: HomeAssistant, bus: FakeHub) -> None:
    result = await start_by_hand(hass)
    task = asyncio.create_task(submit(hass, result))
    await asyncio.sleep(0.05)

    bus.say(ANNOUNCEMENT["topic"], "garbage", retain=False)
    bus.say_golden("hub_announcement")
    bus.say_golden("hub_announcement", hub="hub-2")

    assert_created(await task)


@pytest.mark.usefixtures("hub", "impatient")
async def test_by_hand_for_a_known_hub(hass: HomeAssistant, hub: FakeHub) -> None:
    result = await start_by_hand(hass)
    task = asyncio.create_task(submit(hass, result))
    await asyncio.sleep(0.05)
    hub.say_golden("hub_announcement")

    result = await task

    assert (result["type"], result["reason"]) == (FlowResultType.ABORT, "already_configured")


async def test_by_hand_without_a_hub_and_again_with_one(
    hass: HomeAssistant, bus: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = await start_by_hand(hass)
    with monkeypatch.context() as patch:
        patch.setattr(config_flow, "DISCOVERY_TIMEOUT", 0.05)
        result = await submit(hass, result)
    assert (result["type"], result["errors"]) == (FlowResultType.FORM, {"base": "no_hub"})

    task = asyncio.create_task(submit(hass, result))
    await asyncio.sleep(0.05)
    bus.say_golden("hub_announcement")

    assert_created(await task)


async def test_by_hand_while_the_broker_is_away(hass: HomeAssistant, bus: FakeHub, broker: Broker) -> None:
    broker.disconnect()
    result = await submit(hass, await start_by_hand(hass))
    assert (result["type"], result["errors"]) == (FlowResultType.FORM, {"base": "mqtt_disconnected"})

    broker.connect()
    task = asyncio.create_task(submit(hass, result))
    await asyncio.sleep(0.05)
    bus.say_golden("hub_announcement")

    assert_created(await task)


@pytest.mark.usefixtures("bus")
async def test_by_hand_before_mqtt_is_set_up(hass: HomeAssistant) -> None:
    [entry] = hass.config_entries.async_entries(mqtt.DOMAIN)
    await hass.config_entries.async_set_disabled_by(entry.entry_id, config_entries.ConfigEntryDisabler.USER)

    result = await submit(hass, await start_by_hand(hass))

    assert (result["type"], result["errors"]) == (FlowResultType.FORM, {"base": "mqtt_not_configured"})


async def test_options_change_the_running_agents(hass: HomeAssistant, hub: FakeHub, entry: MockConfigEntry) -> None:
    result = await hass.config_entries.options.async_init(entry.entry_id)
    assert (result["type"], result["step_id"]) == (FlowResultType.FORM, "init")
    suggested = {
        str(key): key.description["suggested_value"] for key in result["data_schema"].schema if key.description
    }
    assert suggested == {CONF_LLM_HASS_API: ["assist"], CONF_TIMEOUT: 20}

    chosen = {CONF_LLM_HASS_API: [], CONF_PROMPT: "Be brief.", CONF_TIMEOUT: 30}
    result = await hass.config_entries.options.async_configure(result["flow_id"], chosen)
    await hass.async_block_till_done()
    hub.come()
    await hass.async_block_till_done()

    assert result["type"] is FlowResultType.CREATE_ENTRY
    assert entry.options == {**chosen, CONF_HINTS: ["speech"]}
    assert hass.states.get(AGENT).attributes["supported_features"] == 0


async def test_an_llm_api_that_is_gone_is_not_suggested(
    hass: HomeAssistant, hub: FakeHub, entry: MockConfigEntry
) -> None:
    assert hub
    hass.config_entries.async_update_entry(entry, options={CONF_LLM_HASS_API: ["gone", "assist"]})

    result = await hass.config_entries.options.async_init(entry.entry_id)

    [key] = [key for key in result["data_schema"].schema if key == CONF_LLM_HASS_API]
    assert key.description["suggested_value"] == ["assist"]


@pytest.mark.parametrize(
    "chosen", [{CONF_TIMEOUT: 0}, {CONF_TIMEOUT: "soon"}, {CONF_TIMEOUT: 60, CONF_PROMPT: "{{ broken"}]
)
async def test_bad_options_are_refused(
    hass: HomeAssistant, hub: FakeHub, entry: MockConfigEntry, chosen: dict[str, Any]
) -> None:
    assert hub
    result = await hass.config_entries.options.async_init(entry.entry_id)

    with pytest.raises(InvalidData):
        await hass.config_entries.options.async_configure(result["flow_id"], chosen)
