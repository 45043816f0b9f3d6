"""Machines that sleep: their switch, hints, smart plugs and repairs."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from types import MappingProxyType
from typing import Any

import pytest
from fake_hub import AGENT, Broker, FakeHub, golden
from homeassistant.components.assist_pipeline import async_get_pipeline, async_update_pipeline
from homeassistant.components.homeassistant import DOMAIN as HOMEASSISTANT
from homeassistant.components.repairs.const import DOMAIN as REPAIRS
from homeassistant.config_entries import SOURCE_RECONFIGURE, SOURCE_USER, ConfigSubentry
from homeassistant.const import STATE_UNAVAILABLE
from homeassistant.core import HomeAssistant, ServiceCall
from homeassistant.data_entry_flow import FlowResultType
from homeassistant.exceptions import HomeAssistantError, ServiceValidationError
from homeassistant.helpers import area_registry as ar
from homeassistant.helpers import entity_registry as er
from homeassistant.helpers import issue_registry as ir
from homeassistant.setup import async_setup_component
from homeassistant.util import dt as dt_util
from pytest_homeassistant_custom_component.common import MockConfigEntry, async_fire_time_changed
from pytest_homeassistant_custom_component.typing import ClientSessionGenerator, MqttMockHAClient

from custom_components.rouse import plugs
from custom_components.rouse.const import CONF_HINTS, DOMAIN, READING_INTERVAL

AWAKE = "switch.attic_awake"
POWER = "sensor.attic_power"
PLUG = "switch.plug"
WATTS = "sensor.plug_power"


@pytest.fixture
def sent(mqtt_mock: MqttMockHAClient) -> Any:
    """Return what was published on a topic."""

    def on(topic: str) -> list[dict[str, Any]]:
        return [json.loads(call.args[1]) for call in mqtt_mock.async_publish.call_args_list if call.args[0] == topic]

    return on


@pytest.fixture
async def node(hass: HomeAssistant, hub: FakeHub) -> FakeHub:
    hub.add_node()
    await hass.async_block_till_done()
    return hub


COMMANDS = "rouse/v1/nodes/attic/power/commands"
RESULTS = "rouse/v1/nodes/attic/power/plug/results"
READINGS = "rouse/v1/nodes/attic/power/plug"
HINTS = "rouse/v1/hub/hints"


def state(hass: HomeAssistant, entity_id: str) -> str:
    found = hass.states.get(entity_id)
    assert found, entity_id
    return found.state


# --- Switch and sensor -----------------------------------------------------------------------------


async def test_a_node_that_sleeps_says_so_and_why(hass: HomeAssistant, node: FakeHub) -> None:
    assert (state(hass, POWER), state(hass, AWAKE)) == ("awake", "on")

    node.say_golden("node_power_asleep")
    node.say_golden("node_status", state="offline")
    await hass.async_block_till_done()

    found = hass.states.get(POWER)
    assert found
    assert found.state == "asleep"
    assert found.attributes["reason"] == "nobody has used it for 20 minutes"
    assert state(hass, AWAKE) == "off"

    node.say_golden("node_power_awake")
    await hass.async_block_till_done()
    assert (state(hass, POWER), state(hass, AWAKE)) == ("lost", "off")


async def test_a_node_that_says_nothing_of_its_power_has_no_switch(hass: HomeAssistant, hub: FakeHub) -> None:
    hub.say_golden("node_announcement")
    hub.say_golden("node_status", state="online")
    await hass.async_block_till_done()
    assert hass.states.get(AWAKE) is None
    assert hass.states.get(POWER) is None


async def test_a_node_that_takes_back_what_it_said_of_its_power(hass: HomeAssistant, node: FakeHub) -> None:
    node.say(golden("node_power_awake")["topic"], "", retain=False)
    await hass.async_block_till_done()
    assert (state(hass, POWER), state(hass, AWAKE)) == ("unknown", "on")

    node.say_golden("node_power_awake")
    await hass.async_block_till_done()
    assert (state(hass, POWER), state(hass, AWAKE)) == ("awake", "on")


async def test_what_a_node_used_and_saved_is_for_the_energy_dashboard(hass: HomeAssistant, node: FakeHub) -> None:
    node.say_golden("node_energy", saved_kwh=31.75)
    node.say_golden("node_power_asleep")
    node.say_golden("node_status", state="offline")
    await hass.async_block_till_done()
    for name, kwh in (("used", "12.25"), ("saved", "31.75")):
        found = hass.states.get(f"sensor.attic_energy_{name}")
        assert found
        assert found.state == kwh, "what was counted stays true while the node sleeps"
        assert (found.attributes["source"], found.attributes["baseline"]) == ("estimate", "measured")
        assert (found.attributes["device_class"], found.attributes["state_class"]) == ("energy", "total_increasing")
        assert found.attributes["unit_of_measurement"] == "kWh"


async def test_a_node_that_does_not_count_has_no_energy_sensors(hass: HomeAssistant, hub: FakeHub) -> None:
    hub.say_golden("node_announcement")
    hub.say_golden("node_power_awake")
    await hass.async_block_till_done()
    assert hass.states.get("sensor.attic_energy_used") is None


@pytest.mark.parametrize(("service", "action"), [("turn_on", "wake"), ("turn_off", "sleep")])
async def test_the_switch_wakes_and_puts_to_sleep(
    hass: HomeAssistant, node: FakeHub, sent: Any, service: str, action: str
) -> None:
    assert node
    await hass.services.async_call("switch", service, {"entity_id": AWAKE}, blocking=True)

    (command,) = sent(COMMANDS)
    assert command["action"] == action
    assert len(command["id"]) == 26
    assert command["reason"]


async def test_without_hub_or_broker_the_switch_is_unavailable(
    hass: HomeAssistant, node: FakeHub, broker: Broker
) -> None:
    node.say_golden("node_power_asleep")
    node.say_golden("node_status", state="offline")
    await hass.async_block_till_done()
    assert state(hass, AWAKE) == "off"
    node.go()
    await hass.async_block_till_done()
    assert state(hass, AWAKE) == STATE_UNAVAILABLE
    assert state(hass, POWER) == "asleep"
    broker.disconnect()
    await hass.async_block_till_done()
    assert state(hass, POWER) == STATE_UNAVAILABLE


# --- Hints -----------------------------------------------------------------------------------------


@pytest.fixture
async def assistant(hass: HomeAssistant, node: FakeHub) -> FakeHub:
    """A voice assistant that uses the hub's agent."""
    assert await async_setup_component(hass, "assist_pipeline", {})
    await hass.async_block_till_done()
    await async_update_pipeline(hass, async_get_pipeline(hass), conversation_engine=AGENT)
    return node


async def test_a_hint_goes_out_when_someone_begins_to_speak(hass: HomeAssistant, assistant: FakeHub, sent: Any) -> None:
    assert assistant
    area = ar.async_get(hass).async_create("Kitchen")
    entity = er.async_get(hass).async_get_or_create("assist_satellite", "test", "1", suggested_object_id="kitchen")
    er.async_get(hass).async_update_entity(entity.entity_id, area_id=area.id)
    hass.states.async_set("assist_satellite.kitchen", "idle")
    hass.states.async_set("assist_satellite.kitchen", "listening")
    hass.states.async_set("assist_satellite.kitchen", "processing")
    hass.states.async_set("person.ada", "not_home")
    hass.states.async_set("person.ada", "home")
    await hass.async_block_till_done()

    assert sent(HINTS) == [{"kind": "speech", "agent": "home", "area": "Kitchen"}]


async def test_a_hint_goes_out_when_someone_comes_home_if_the_options_say_so(
    hass: HomeAssistant, assistant: FakeHub, entry: MockConfigEntry, sent: Any
) -> None:
    hass.config_entries.async_update_entry(entry, options={**entry.options, CONF_HINTS: ["arrival"]})
    assert await hass.config_entries.async_reload(entry.entry_id)
    assistant.come()
    assistant.add_node()
    await hass.async_block_till_done()
    for value in ("unknown", "home", "not_home", "home", "home"):
        hass.states.async_set("person.ada", value)
    hass.states.async_set("assist_satellite.kitchen", "idle")
    hass.states.async_set("assist_satellite.kitchen", "listening")
    await hass.async_block_till_done()

    assert sent(HINTS) == [{"kind": "arrival", "agent": "home"}]


async def test_no_hint_without_an_assistant_that_uses_the_agent_or_without_the_hub(
    hass: HomeAssistant, node: FakeHub, sent: Any
) -> None:
    hass.states.async_set("assist_satellite.kitchen", "idle")
    hass.states.async_set("assist_satellite.kitchen", "listening")
    await hass.async_block_till_done()
    assert await async_setup_component(hass, "assist_pipeline", {})
    hass.states.async_set("assist_satellite.kitchen", "idle")
    hass.states.async_set("assist_satellite.kitchen", "listening")
    node.go()
    await hass.async_block_till_done()
    hass.states.async_set("assist_satellite.kitchen", "idle")
    hass.states.async_set("assist_satellite.kitchen", "listening")
    await hass.async_block_till_done()

    assert sent(HINTS) == []


async def test_the_action_gives_a_hint(hass: HomeAssistant, node: FakeHub, sent: Any, broker: Broker) -> None:
    assert node
    await hass.services.async_call(DOMAIN, "hint", {"kind": "arrival", "agent": "home"}, blocking=True)
    await hass.services.async_call(DOMAIN, "hint", {"kind": "other", "area": "Hall"}, blocking=True)
    assert sent(HINTS) == [{"kind": "arrival", "agent": "home"}, {"kind": "other", "area": "Hall"}]

    with pytest.raises(ServiceValidationError, match="No hub has an agent butler"):
        await hass.services.async_call(DOMAIN, "hint", {"kind": "other", "agent": "butler"}, blocking=True)
    broker.disconnect()
    with pytest.raises(HomeAssistantError, match="not connected"):
        await hass.services.async_call(DOMAIN, "hint", {"kind": "other"}, blocking=True)


async def test_the_action_without_a_hub(hass: HomeAssistant, entry: MockConfigEntry, hub: FakeHub) -> None:
    assert hub
    assert await hass.config_entries.async_unload(entry.entry_id)
    with pytest.raises(ServiceValidationError, match="No hub is set up"):
        await hass.services.async_call(DOMAIN, "hint", {"kind": "other"}, blocking=True)


# --- Plugs -----------------------------------------------------------------------------------------


@pytest.fixture
def entry(entry: MockConfigEntry, hass: HomeAssistant) -> MockConfigEntry:
    """A hub whose node attic has a smart plug."""
    hass.config_entries.async_add_subentry(
        entry,
        ConfigSubentry(
            data=MappingProxyType({"node": "attic", "switch": PLUG, "power_sensor": WATTS}),
            subentry_type="plug",
            title="Attic",
            unique_id="attic",
        ),
    )
    return entry


@pytest.fixture
async def plug(hass: HomeAssistant, node: FakeHub) -> AsyncIterator[list[str]]:
    """A smart plug that does as it is told, and what it was told."""
    assert node
    calls: list[str] = []

    async def turn(call: ServiceCall) -> None:
        assert call.data["entity_id"] == [PLUG] or call.data["entity_id"] == PLUG
        calls.append(call.service)
        hass.states.async_set(PLUG, "on" if call.service == "turn_on" else "off")

    hass.states.async_set(PLUG, "on")
    hass.states.async_set(WATTS, "41.5", {"unit_of_measurement": "W"})
    for service in ("turn_on", "turn_off"):
        hass.services.async_register("switch", service, turn)
    yield calls
    await hass.async_block_till_done()


def ask_for_plug(node: FakeHub, **changes: Any) -> None:
    node.say_golden("plug_command", **{"deadline": time.time() + 60, "off_seconds": 1, **changes})


async def result(hass: HomeAssistant, sent: Any) -> dict[str, Any]:
    async with asyncio.timeout(30):
        while not sent(RESULTS):
            await asyncio.sleep(0.02)
    await hass.async_block_till_done()
    (found,) = sent(RESULTS)
    return dict(found)


async def test_a_plug_is_switched_off_and_on_and_confirmed(
    hass: HomeAssistant, node: FakeHub, plug: list[str], sent: Any
) -> None:
    ask_for_plug(node)
    assert await result(hass, sent) == {
        "id": golden("plug_command")["payload"]["id"],
        "ok": True,
        "message": "switch.plug was off for 1 s and is on",
        "watts": 41.5,
    }
    assert plug == ["turn_off", "turn_on"]

    ask_for_plug(node)
    await hass.async_block_till_done()
    assert plug == ["turn_off", "turn_on"], "a repeated command is obeyed once"


async def test_a_plug_that_is_off_is_switched_on(
    hass: HomeAssistant, node: FakeHub, plug: list[str], sent: Any
) -> None:
    hass.states.async_set(PLUG, "off")
    ask_for_plug(node)
    assert (await result(hass, sent))["message"] == "switch.plug was off and is on"
    assert plug == ["turn_on"]


async def test_a_wish_that_is_out_of_date_is_not_obeyed(
    hass: HomeAssistant, node: FakeHub, plug: list[str], sent: Any
) -> None:
    ask_for_plug(node, deadline=time.time() - 1)
    await hass.async_block_till_done()
    assert plug == []
    assert sent(RESULTS) == []


@pytest.mark.parametrize("value", ["", "unavailable"])
async def test_a_plug_that_is_not_there_is_said_to_be(
    hass: HomeAssistant, node: FakeHub, plug: list[str], sent: Any, value: str
) -> None:
    if value:
        hass.states.async_set(PLUG, value)
    else:
        hass.states.async_remove(PLUG)
    ask_for_plug(node)
    assert await result(hass, sent) == {
        "id": golden("plug_command")["payload"]["id"],
        "ok": False,
        "message": "switch.plug is not available",
    }
    assert plug == []


async def test_a_node_without_a_plug_is_answered_too(
    hass: HomeAssistant, plug: list[str], hub: FakeHub, sent: Any
) -> None:
    assert plug == []
    command = {**golden("plug_command")["payload"], "deadline": time.time() + 60}
    hub.say("rouse/v1/nodes/cellar/power/plug/commands", command, retain=False)
    await hass.async_block_till_done()
    (found,) = sent("rouse/v1/nodes/cellar/power/plug/results")
    assert (found["ok"], found["message"]) == (False, "no plug of cellar is chosen in Home Assistant")


async def test_a_plug_that_does_not_obey_is_said_not_to_and_switched_on_all_the_same(
    hass: HomeAssistant, node: FakeHub, plug: list[str], sent: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugs, "SWITCH_TIMEOUT", 0.1)
    calls = []

    async def deaf(call: ServiceCall) -> None:
        calls.append(call.service)

    for service in ("turn_on", "turn_off"):
        hass.services.async_register("switch", service, deaf)
    ask_for_plug(node)
    found = await result(hass, sent)
    assert (found["ok"], found["message"]) == (False, "switch.plug did not say within 0.1 s that it is off")
    assert calls == ["turn_off", "turn_on"]
    assert plug == []


async def test_what_a_plug_measures_is_told_to_its_node(
    hass: HomeAssistant, node: FakeHub, plug: list[str], sent: Any, broker: Broker
) -> None:
    assert node
    assert plug == []
    hass.states.async_set(WATTS, "0.05", {"unit_of_measurement": "kW"})
    for value in ("unavailable", "unknown", "-3", "nan", "1e12", "text"):
        hass.states.async_set(WATTS, value, {"unit_of_measurement": "W"})
    await hass.async_block_till_done()
    assert sent(READINGS) == [{"watts": 41.5}, {"watts": 50.0}]

    hass.states.async_set(WATTS, "7", {"unit_of_measurement": "W"})
    async_fire_time_changed(hass, dt_util.utcnow() + timedelta(seconds=READING_INTERVAL + 1))
    await hass.async_block_till_done()
    assert sent(READINGS)[2:] == [{"watts": 7.0}, {"watts": 7.0}]

    broker.disconnect()
    hass.states.async_set(WATTS, "8", {"unit_of_measurement": "W"})
    await hass.async_block_till_done()
    assert len(sent(READINGS)) == 4


async def test_a_plug_is_chosen_and_changed(
    hass: HomeAssistant, node: FakeHub, entry: MockConfigEntry, sent: Any
) -> None:
    (subentry,) = entry.subentries.values()
    hass.config_entries.async_remove_subentry(entry, subentry.subentry_id)
    start = hass.config_entries.subentries.async_init
    form = await start((entry.entry_id, "plug"), context={"source": SOURCE_USER})
    assert (form["type"], form["step_id"]) == (FlowResultType.FORM, "user")
    done = await hass.config_entries.subentries.async_configure(
        form["flow_id"], {"node": "attic", "switch": "switch.other", "power_sensor": "sensor.other"}
    )
    assert (done["type"], done["title"], done["unique_id"]) == (FlowResultType.CREATE_ENTRY, "Attic", "attic")
    hass.states.async_set("sensor.other", "3", {"unit_of_measurement": "W"})
    await hass.async_block_till_done()
    assert sent(READINGS) == [{"watts": 3.0}]

    none_left = await start((entry.entry_id, "plug"), context={"source": SOURCE_USER})
    assert (none_left["type"], none_left["reason"]) == (FlowResultType.ABORT, "no_node")

    (subentry,) = entry.subentries.values()
    form = await start(
        (entry.entry_id, "plug"), context={"source": SOURCE_RECONFIGURE, "subentry_id": subentry.subentry_id}
    )
    assert form["step_id"] == "reconfigure"
    done = await hass.config_entries.subentries.async_configure(form["flow_id"], {"switch": PLUG})
    assert (done["type"], done["reason"]) == (FlowResultType.ABORT, "reconfigure_successful")
    (subentry,) = entry.subentries.values()
    assert dict(subentry.data) == {"node": "attic", "switch": PLUG}
    hass.states.async_set("sensor.other", "4", {"unit_of_measurement": "W"})
    await hass.async_block_till_done()
    assert len(sent(READINGS)) == 1
    assert node


async def test_no_plug_is_chosen_while_the_hub_is_not_loaded(
    hass: HomeAssistant, hub: FakeHub, entry: MockConfigEntry
) -> None:
    assert hub
    assert await hass.config_entries.async_unload(entry.entry_id)
    result = await hass.config_entries.subentries.async_init((entry.entry_id, "plug"), context={"source": SOURCE_USER})
    assert (result["type"], result["reason"]) == (FlowResultType.ABORT, "not_loaded")


# --- Repairs ---------------------------------------------------------------------------------------


def issues(hass: HomeAssistant) -> list[ir.IssueEntry]:
    return [issue for (domain, _), issue in ir.async_get(hass).issues.items() if domain == DOMAIN and issue.active]


async def test_a_notice_is_a_repair_until_the_node_is_back(hass: HomeAssistant, node: FakeHub) -> None:
    notice = golden("repair_notice")
    node.say(notice["topic"], notice["payload"])
    await hass.async_block_till_done()
    (issue,) = issues(hass)
    assert issue.is_fixable
    assert issue.severity is ir.IssueSeverity.ERROR
    assert issue.translation_key == "did_not_wake"
    assert issue.translation_placeholders == {
        "node": "Attic",
        "tried": "- magic_packet: 6 packets to 192.168.1.255; nothing came back within 60 s\n"
        "- plug: Home Assistant did not answer within 60 s",
    }

    node.say(notice["topic"], "", retain=False)
    await hass.async_block_till_done()
    assert issues(hass) == []


async def test_unloading_takes_the_repairs_away(hass: HomeAssistant, node: FakeHub, entry: MockConfigEntry) -> None:
    node.say_golden("repair_notice")
    await hass.async_block_till_done()
    assert issues(hass)
    assert await hass.config_entries.async_unload(entry.entry_id)
    assert issues(hass) == []


async def test_a_repair_asks_the_hub_to_try_again(
    hass: HomeAssistant, node: FakeHub, hass_client: ClientSessionGenerator, sent: Any
) -> None:
    assert await async_setup_component(hass, REPAIRS, {})
    assert await async_setup_component(hass, HOMEASSISTANT, {})
    node.say_golden("repair_notice", problem="lost")
    await hass.async_block_till_done()
    (issue,) = issues(hass)
    client = await hass_client()
    response = await client.post("/api/repairs/issues/fix", json={"handler": DOMAIN, "issue_id": issue.issue_id})
    form = await response.json()
    assert (form["type"], form["step_id"]) == ("form", "confirm")
    assert form["description_placeholders"]["node"] == "Attic"
    response = await client.post(f"/api/repairs/issues/fix/{form['flow_id']}", json={})
    assert (await response.json())["type"] == "create_entry"
    (command,) = sent(COMMANDS)
    assert command["action"] == "recover"
    assert issues(hass) == []

    cellar = {**golden("repair_notice")["payload"], "node": "cellar"}
    node.say("rouse/v1/nodes/cellar/announcement", {**golden("node_announcement")["payload"], "node": "cellar"})
    node.say("rouse/v1/nodes/cellar/repair", cellar)
    await hass.async_block_till_done()
    assert len(issues(hass)) == 1, "another node's notice does not bring it back"
    node.say_golden("repair_notice", problem="lost", since=1795009999.0, summary="again")
    await hass.async_block_till_done()
    assert len(issues(hass)) == 2
