import asyncio
from typing import Any
from unittest.mock import Mock

import jsonschema
import pytest
from fake_hub import AGENT, Broker, FakeHub, failed, finished, golden, text, tool_call
from homeassistant.components import conversation
from homeassistant.components.conversation import (
    AssistantContent,
    ConversationEntityFeature,
    ConversationResult,
    ToolResultContent,
    async_get_chat_log,
)
from homeassistant.components.homeassistant.exposed_entities import async_expose_entity
from homeassistant.config_entries import ConfigEntry
from homeassistant.const import (
    CONF_LLM_HASS_API,
    CONF_PROMPT,
    CONF_TIMEOUT,
    EVENT_STATE_CHANGED,
    STATE_UNAVAILABLE,
)
from homeassistant.core import Context, HomeAssistant, State
from homeassistant.helpers import area_registry as ar
from homeassistant.helpers import device_registry as dr
from homeassistant.helpers import entity_registry as er
from homeassistant.helpers import llm
from homeassistant.helpers.chat_session import async_get_chat_session
from homeassistant.setup import async_setup_component
from homeassistant.util import dt as dt_util
from pytest_homeassistant_custom_component.common import MockConfigEntry, MockUser, async_capture_events
from pytest_homeassistant_custom_component.typing import MqttMockHAClient, MqttMockPahoClient

LAMP = "input_boolean.lamp"
TURN_ON = "intent__HassTurnOn"
TURN_OFF = "intent__HassTurnOff"


async def say(
    hass: HomeAssistant, words: str = "Hello", conversation_id: str | None = None, language: str = "en"
) -> ConversationResult:
    return await conversation.async_converse(hass, words, conversation_id, Context(), agent_id=AGENT, language=language)


def speech(result: ConversationResult) -> Any:
    return result.response.speech["plain"]["speech"]


async def spoken_error(hass: HomeAssistant) -> Any:
    result = await say(hass)
    assert result.response.error_code is not None
    return speech(result)


async def set_options(hass: HomeAssistant, hub: FakeHub, entry: ConfigEntry, options: dict[str, Any]) -> None:
    hass.config_entries.async_update_entry(entry, options={CONF_TIMEOUT: 20, **options})
    assert await hass.config_entries.async_reload(entry.entry_id)
    hub.come()
    await hass.async_block_till_done()


def agent_state(hass: HomeAssistant) -> State:
    state = hass.states.get(AGENT)
    assert state
    return state


@pytest.fixture
async def lamp(hass: HomeAssistant, hub: FakeHub) -> str:
    """A lamp in the kitchen that the agent may control."""
    assert hub
    assert await async_setup_component(hass, "input_boolean", {"input_boolean": {"lamp": {"name": "Lamp"}}})
    kitchen = ar.async_get(hass).async_create("Kitchen")
    er.async_get(hass).async_update_entity(LAMP, area_id=kitchen.id, aliases=["Light", er.COMPUTED_NAME])
    async_expose_entity(hass, "conversation", LAMP, should_expose=True)
    return LAMP


async def test_streams_an_answer(hass: HomeAssistant, hub: FakeHub) -> None:
    hub.will_say(text("The light "), text("is on."), finished("The light is on."))

    result = await say(hass)

    assert speech(result) == "The light is on."
    assert result.response.error_code is None
    assert not result.continue_conversation


async def test_pieces_reach_the_listener_before_the_end(hass: HomeAssistant, hub: FakeHub) -> None:
    deltas: list[Any] = []
    task = asyncio.create_task(_listen(hass, deltas))
    await hub.wait_for_requests(1)
    request = hub.requests[0]

    hub.reply(request, 0, text("The light "))
    await asyncio.sleep(0.01)

    assert deltas == [{"role": "assistant"}, {"content": "The light "}]
    hub.reply(request, 1, finished("The light is on."))
    assert (await task).content[-1].content == "The light is on."


async def _listen(hass: HomeAssistant, deltas: list[Any]) -> conversation.ChatLog:
    with (
        async_get_chat_session(hass) as session,
        conversation.async_get_chat_log(
            hass, session, chat_log_delta_listener=lambda _, delta: deltas.append(delta)
        ) as chat_log,
    ):
        await conversation.async_converse(hass, "Hello", session.conversation_id, Context(), agent_id=AGENT)
        return chat_log


async def test_the_request_follows_the_contract(hass: HomeAssistant, hub: FakeHub, lamp: str) -> None:
    hub.will_say(finished("Yes."))

    before = dt_util.utcnow().timestamp()
    await say(hass, "Is the lamp on?")

    [request] = hub.requests
    contract = golden("chat_request")["payload"]
    assert request.keys() == contract.keys()
    assert before + 20 <= request["deadline"] <= before + 25
    assert [message["role"] for message in request["messages"]] == ["system", "user"]
    assert request["messages"][1] == {"role": "user", "text": "Is the lamp on?"}
    assert llm.DEFAULT_INSTRUCTIONS_PROMPT.splitlines()[0] in request["messages"][0]["text"]
    assert request["entities"] == [
        {
            "entity_id": lamp,
            "names": ["Light", "Lamp"],
            "domain": "input_boolean",
            "area": "Kitchen",
            "state": "off",
        }
    ]
    assert {TURN_ON, TURN_OFF} <= {tool["name"] for tool in request["tools"]}
    for tool in request["tools"]:
        assert tool.keys() == contract["tools"][0].keys()
        assert tool["parameters"]["type"] == "object"
        jsonschema.Draft202012Validator.check_schema(tool["parameters"])


async def test_the_question_in_another_language(hass: HomeAssistant, hub: FakeHub) -> None:
    hub.will_say(finished("Ja."))
    hub.will_say(finished("Oui."))

    await say(hass, language="de_CH")
    await say(hass, language="français!")

    assert [request["language"] for request in hub.requests] == ["de-CH", "en"]


async def test_a_tool_call_turns_the_lamp_on(hass: HomeAssistant, hub: FakeHub, lamp: str) -> None:
    call = tool_call("call-1", TURN_ON, name="Lamp")
    hub.will_say(call, finished("", call))
    hub.will_say(text("The lamp is on."), finished("The lamp is on."))

    result = await say(hass, "Turn on the lamp")

    assert hass.states.is_state(lamp, "on")
    assert speech(result) == "The lamp is on."
    first, second = hub.requests
    assert first["id"] != second["id"]
    assert first["conversation_id"] == second["conversation_id"] == result.conversation_id
    asked, returned = second["messages"][-2:]
    assert asked == {"role": "assistant", "text": "", "tool_calls": [call["call"]]}
    assert (returned["role"], returned["call_id"], returned["name"]) == ("tool", "call-1", TURN_ON)
    assert returned["result"]["data"]["success"][-1]["id"] == lamp
    assert second["entities"][0]["state"] == "on"


async def test_a_tool_call_that_fails_is_told_to_the_model(hass: HomeAssistant, hub: FakeHub, lamp: str) -> None:
    call = tool_call("call-1", TURN_ON, name="Chandelier")
    hub.will_say(call, finished("", call))
    hub.will_say(finished("There is none."))

    assert speech(await say(hass)) == "There is none."
    assert hass.states.is_state(lamp, "off")
    result = hub.requests[1]["messages"][-1]["result"]
    assert result["error"] == "MatchFailedError"


async def test_an_unknown_tool_is_told_to_the_model(hass: HomeAssistant, hub: FakeHub) -> None:
    call = tool_call("call-1", "HassDance")
    hub.will_say(finished("", call))
    hub.will_say(finished("I can't dance."))

    assert speech(await say(hass)) == "I can't dance."
    assert "HassDance" in hub.requests[1]["messages"][-1]["result"]["error_text"]


async def test_a_lost_tool_call_is_executed_once(hass: HomeAssistant, hub: FakeHub, lamp: str) -> None:
    first = tool_call("call-1", TURN_ON, name="Lamp")
    lost = tool_call("call-2", TURN_OFF, name="Lamp")
    hub.will_say(first, lost, finished("", first, lost), order=[0, 0, 2])
    hub.will_say(finished("Done."))
    changes = async_capture_events(hass, EVENT_STATE_CHANGED)

    assert speech(await say(hass)) == "Done."
    states = [event.data["new_state"].state for event in changes if event.data["entity_id"] == lamp]
    assert states == ["on", "off"]


async def test_a_model_that_never_stops_calling_tools(hass: HomeAssistant, hub: FakeHub) -> None:
    for number in range(20):
        hub.will_say(finished("", tool_call(f"call-{number}", "HassDance")))

    assert await spoken_error(hass) == "The model kept calling tools and came to no answer"
    assert len(hub.requests) == 10


async def test_the_conversation_goes_on(hass: HomeAssistant, hub: FakeHub) -> None:
    hub.will_say(finished("Which lamp?"))
    hub.will_say(finished("It is on."))

    first = await say(hass, "Turn on the lamp")
    assert first.continue_conversation
    await say(hass, "The left one", first.conversation_id)

    assert [message["text"] for message in hub.requests[1]["messages"][1:]] == [
        "Turn on the lamp",
        "Which lamp?",
        "The left one",
    ]


async def test_a_long_conversation_id_is_shortened(hass: HomeAssistant, hub: FakeHub) -> None:
    hub.will_say(finished("Yes."))

    await say(hass, conversation_id="x" * 300)

    assert hub.requests[0]["conversation_id"] == "x" * 128


@pytest.mark.parametrize("llm_apis", [[]])
async def test_without_an_llm_api_there_is_no_control(hass: HomeAssistant, hub: FakeHub, lamp: str) -> None:
    hub.will_say(text("a"), tool_call("call-1", TURN_ON, name="Lamp"), order=[0, 1])

    assert await spoken_error(hass) == "The model tried to control the house, but is not allowed to"
    assert hass.states.is_state(lamp, "off")
    assert (hub.requests[0]["tools"], hub.requests[0]["entities"]) == ([], [])
    assert hub.cancelled == [hub.requests[0]["id"]]
    assert agent_state(hass).attributes["supported_features"] == 0


async def test_an_agent_without_control_gets_no_tools(hass: HomeAssistant, hub: FakeHub, lamp: str) -> None:
    assert agent_state(hass).attributes["supported_features"] == ConversationEntityFeature.CONTROL
    hub.say_golden("agent_announcement", control=False)
    hub.will_say(finished("Yes."))

    await say(hass)

    assert lamp
    assert agent_state(hass).attributes["supported_features"] == 0
    assert (hub.requests[0]["tools"], hub.requests[0]["entities"]) == ([], [])


async def test_a_missing_llm_api_is_spoken(hass: HomeAssistant, hub: FakeHub, entry: MockConfigEntry) -> None:
    await set_options(hass, hub, entry, {CONF_LLM_HASS_API: ["gone"]})

    assert await spoken_error(hass) == "Error preparing LLM API"


async def test_the_prompt_option(hass: HomeAssistant, hub: FakeHub, entry: MockConfigEntry) -> None:
    await set_options(hass, hub, entry, {CONF_PROMPT: "Talk like a pirate of {{ ha_name }}."})
    hub.will_say(finished("Arr."))

    await say(hass)

    [request] = hub.requests
    assert "Talk like a pirate of test home." in request["messages"][0]["text"]
    assert request["instructions"] == "Talk like a pirate of test home."


@pytest.mark.parametrize("prompt", [None, "", llm.DEFAULT_INSTRUCTIONS_PROMPT, f"\n{llm.DEFAULT_INSTRUCTIONS_PROMPT}"])
async def test_home_assistants_own_prompt_is_no_instruction_of_the_user(
    hass: HomeAssistant, hub: FakeHub, entry: MockConfigEntry, prompt: str | None
) -> None:
    await set_options(hass, hub, entry, {CONF_LLM_HASS_API: ["assist"], CONF_PROMPT: prompt})
    hub.will_say(finished("Yes."))

    await say(hass)

    [request] = hub.requests
    assert llm.DEFAULT_INSTRUCTIONS_PROMPT.splitlines()[0] in request["messages"][0]["text"]
    assert request["instructions"] == ""


async def test_the_prompt_option_knows_who_speaks(
    hass: HomeAssistant, hub: FakeHub, entry: MockConfigEntry, hass_owner_user: MockUser
) -> None:
    template = "Call me {{ user_name }}, I speak {{ llm_context.language }}."
    await set_options(hass, hub, entry, {CONF_PROMPT: template})
    hub.will_say(finished("Yes."))

    context = Context(user_id=hass_owner_user.id)
    await conversation.async_converse(hass, "Hello", None, context, agent_id=AGENT, language="en")

    [request] = hub.requests
    assert request["instructions"] == f"Call me {hass_owner_user.name}, I speak en."
    assert request["instructions"] in request["messages"][0]["text"]


async def test_what_an_automation_adds_is_an_instruction_for_the_whole_conversation(
    hass: HomeAssistant, hub: FakeHub, entry: MockConfigEntry
) -> None:
    await set_options(hass, hub, entry, {CONF_LLM_HASS_API: ["assist"], CONF_PROMPT: "Be brief."})
    hub.will_say(finished("Shall I close it?"))
    hub.will_say(finished("Closed."))
    added = "The garage door was left open."

    first = await conversation.async_converse(hass, "Hello", None, Context(), agent_id=AGENT, extra_system_prompt=added)
    await say(hass, "Yes", first.conversation_id)

    assert [request["instructions"] for request in hub.requests] == [f"Be brief.\n{added}"] * 2


async def test_a_prompt_that_is_no_template_is_spoken(
    hass: HomeAssistant, hub: FakeHub, entry: MockConfigEntry
) -> None:
    await set_options(hass, hub, entry, {CONF_PROMPT: "{{ broken"})

    assert await spoken_error(hass) == "Sorry, I had a problem with my template"
    assert hub.requests == []


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("invalid_request", "The hub did not understand the request"),
        ("expired", "The model did not answer in time"),
        ("no_expert", "No model is available to answer"),
        ("overloaded", "The hub is too busy to answer. Please ask again later"),
        ("model_error", "The model failed to answer"),
        ("cancelled", "The request was cancelled"),
        ("stopping", "The hub is shutting down"),
        ("a_new_code", "The hub could not answer"),
    ],
)
async def test_failures_are_spoken(hass: HomeAssistant, hub: FakeHub, code: str, sentence: str) -> None:
    hub.will_say(failed(code))

    assert await spoken_error(hass) == sentence


async def test_an_empty_answer_is_spoken(hass: HomeAssistant, hub: FakeHub) -> None:
    hub.will_say(finished(""))

    assert await spoken_error(hass) == "The model gave an empty answer"


async def test_a_gap_is_filled_from_the_final_message(hass: HomeAssistant, hub: FakeHub) -> None:
    hub.will_say(text("One, "), text("two, "), text("three"), finished("One, two, three."), order=[0, 2, 3])

    assert speech(await say(hass)) == "One, two, three."


async def test_duplicates_are_spoken_once(hass: HomeAssistant, hub: FakeHub) -> None:
    hub.will_say(text("One, "), text("two."), finished("One, two."), order=[0, 0, 1, 0, 1, 2, 2])

    assert speech(await say(hass)) == "One, two."


async def test_an_unknown_kind_is_skipped(hass: HomeAssistant, hub: FakeHub) -> None:
    hub.will_say({"kind": "mood", "mood": "good"}, text("Yes."), finished("Yes."))

    assert speech(await say(hass)) == "Yes."


async def test_another_requests_reply_changes_nothing(hass: HomeAssistant, hub: FakeHub) -> None:
    def answer(request: dict[str, Any]) -> list[dict[str, Any]]:
        hub.reply({**request, "id": "01JD0000000000000000000009"}, 0, text("No."))
        return [{"seq": 0, **finished("Yes.")}]

    hub.answers.append(answer)

    assert speech(await say(hass)) == "Yes."


@pytest.mark.parametrize("timeout", [0.3])
async def test_time_up_cancels_the_request(hass: HomeAssistant, hub: FakeHub) -> None:
    assert await spoken_error(hass) == "The model did not answer in time"

    assert {request["id"] for request in hub.requests} == set(hub.cancelled)
    assert len(hub.cancelled) == 1
    assert len(hub.requests) > 1, "the same request is repeated while nothing is heard"


async def test_a_cancelled_pipeline_cancels_the_request(hass: HomeAssistant, hub: FakeHub) -> None:
    hub.will_say(text("Yes"), order=[0])
    task = asyncio.create_task(say(hass))
    await hub.wait_for_requests(1)

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await hass.async_block_till_done()

    assert hub.cancelled == [hub.requests[0]["id"]]


async def test_an_offline_hub_is_told_at_once(hass: HomeAssistant, hub: FakeHub) -> None:
    hub.go()
    await hass.async_block_till_done()

    assert agent_state(hass).state == STATE_UNAVAILABLE
    assert await spoken_error(hass) == "The hub is offline"
    assert hub.requests == []

    hub.come()
    await hass.async_block_till_done()
    hub.will_say(finished("Yes."))
    assert agent_state(hass).state != STATE_UNAVAILABLE
    assert speech(await say(hass)) == "Yes."


async def test_a_lost_broker_is_told_at_once(hass: HomeAssistant, hub: FakeHub, broker: Broker) -> None:
    broker.disconnect()
    await hass.async_block_till_done()

    assert agent_state(hass).state == STATE_UNAVAILABLE
    assert await spoken_error(hass) == "Home Assistant is not connected to the MQTT broker"
    assert hub.requests == []

    broker.connect()
    await hass.async_block_till_done()
    assert agent_state(hass).state == STATE_UNAVAILABLE, "the hub has not been heard again yet"
    hub.come()
    await hass.async_block_till_done()
    assert agent_state(hass).state != STATE_UNAVAILABLE


async def test_a_reconnection_repeats_the_request(hass: HomeAssistant, hub: FakeHub, broker: Broker) -> None:
    task = asyncio.create_task(say(hass))
    await hub.wait_for_requests(1)
    broker.disconnect()
    broker.connect()
    broker.resubscribe(hub.requests[0]["client"])
    await hub.wait_for_requests(2)

    hub.reply(hub.requests[0], 0, finished("Yes."))

    assert speech(await task) == "Yes."
    assert hub.requests[0] == hub.requests[1]
    assert hub.cancelled == []


async def test_unloading_ends_the_wait(hass: HomeAssistant, hub: FakeHub, entry: MockConfigEntry) -> None:
    task = asyncio.create_task(say(hass))
    await hub.wait_for_requests(1)

    await hass.config_entries.async_unload(entry.entry_id)

    assert speech(await task) == "The Rouse integration was reloaded. Please ask again"
    await hass.async_block_till_done()
    assert hub.cancelled == [hub.requests[0]["id"]]


async def test_a_request_that_is_too_large_is_not_sent(hass: HomeAssistant, hub: FakeHub) -> None:
    result = await say(hass, "x" * 1_000_001)

    assert speech(result).startswith("The conversation is too long for the hub")
    assert hub.requests == []


async def test_a_tool_result_that_is_no_json_is_not_sent(
    hass: HomeAssistant, hub: FakeHub, lamp: str, caplog: pytest.LogCaptureFixture
) -> None:
    class ObjectTool(llm.Tool):
        name = "test__object"
        integration = "test"

        async def async_call(self, *_: Any) -> llm.ToolResult:
            return llm.ToolResult({"object": object()})

    class ObjectApi(llm.API):
        async def async_get_api_instance(self, llm_context: llm.LLMContext) -> llm.APIInstance:
            return llm.APIInstance(self, "", llm_context, [ObjectTool()])

    llm.async_register_api(hass, ObjectApi(hass=hass, id="objects", name="Objects"))
    [entry] = hass.config_entries.async_entries("rouse")
    await set_options(hass, hub, entry, {CONF_LLM_HASS_API: ["objects"]})
    hub.will_say(finished("", tool_call("call-1", "test__object")))

    assert lamp
    assert await spoken_error(hass) == "A device gave an answer that can't be passed on to the model"
    assert len(hub.requests) == 1
    assert "can't be written as JSON" in caplog.text


async def test_a_broker_that_refuses_is_told(
    hass: HomeAssistant, hub: FakeHub, mqtt_client_mock: MqttMockPahoClient
) -> None:
    mqtt_client_mock.publish.side_effect = None
    mqtt_client_mock.publish.return_value = Mock(mid=1, rc=4)

    assert await spoken_error(hass) == "Home Assistant is not connected to the MQTT broker"
    assert hub.requests == []


async def test_nothing_is_published_without_a_broker(
    hass: HomeAssistant, hub: FakeHub, broker: Broker, mqtt_mock: MqttMockHAClient
) -> None:
    task = asyncio.create_task(say(hass))
    await hub.wait_for_requests(1)
    broker.disconnect()
    mqtt_mock.async_publish.reset_mock()

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    mqtt_mock.async_publish.assert_not_called()


async def test_what_another_agent_had_executed_elsewhere_is_left_out(hass: HomeAssistant, hub: FakeHub) -> None:
    elsewhere = llm.ToolInput("web search", {"query": "x"}, id="call-1", external=True)
    with async_get_chat_session(hass) as session, async_get_chat_log(hass, session) as chat_log:
        for content in (
            AssistantContent("other", "Let me see.", tool_calls=[elsewhere]),
            ToolResultContent("other", "call-1", "web search", llm.ToolResult({"found": 1})),
            AssistantContent("other", "Found it."),
        ):
            chat_log.async_add_assistant_content_without_tools(content)
    hub.will_say(finished("Yes."))

    await say(hass, "And now?", session.conversation_id)

    assert hub.requests[0]["messages"][1:] == [
        {"role": "assistant", "text": "Let me see.", "tool_calls": []},
        {"role": "assistant", "text": "Found it.", "tool_calls": []},
        {"role": "user", "text": "And now?"},
    ]


async def test_an_entity_is_where_its_device_is(hass: HomeAssistant, hub: FakeHub) -> None:
    entry = MockConfigEntry(domain="test")
    entry.add_to_hass(hass)
    attic = ar.async_get(hass).async_create("Attic")
    registry = dr.async_get(hass)
    lamp = registry.async_get_or_create(config_entry_id=entry.entry_id, identifiers={("test", "1")})
    registry.async_update_device(lamp.id, area_id=attic.id)
    light = er.async_get(hass).async_get_or_create("light", "test", "1", device_id=lamp.id)
    hass.states.async_set(light.entity_id, "on", {"friendly_name": "Attic lamp"})
    async_expose_entity(hass, "conversation", light.entity_id, should_expose=True)
    hub.will_say(finished("Yes."))

    await say(hass)

    [exposed] = [entity for entity in hub.requests[0]["entities"] if entity["entity_id"] == light.entity_id]
    assert exposed["area"] == "Attic"


async def test_agents_come_change_and_go(hass: HomeAssistant, hub: FakeHub) -> None:
    topic = "rouse/v1/agents/chef/announcement"
    chef = {"agent": "chef", "name": "Chef", "languages": ["de", "fr"]}
    hub.say(topic, chef)
    await hass.async_block_till_done()
    agent = conversation.agent_manager.async_get_agent(hass, "conversation.rouse_chef")
    assert agent
    assert agent.supported_languages == ["de", "fr"]

    hub.say(topic, {**chef, "name": "Cook", "languages": ["*"]}, retain=False)
    await hass.async_block_till_done()
    assert agent.supported_languages == "*"
    assert hass.states.get("conversation.rouse_chef").name == "Rouse Cook"

    hub.say(topic, "", retain=False)
    await hass.async_block_till_done()
    assert hass.states.is_state("conversation.rouse_chef", STATE_UNAVAILABLE)
    assert conversation.agent_manager.async_get_agent(hass, "conversation.rouse_chef") is None

    hub.say(topic, chef, retain=False)
    await hass.async_block_till_done()
    assert hass.states.is_state("conversation.rouse_chef", "unknown")
    assert not hass.states.is_state(AGENT, STATE_UNAVAILABLE)


async def test_another_hub_on_the_bus_is_not_spoken_to(
    hass: HomeAssistant, hub: FakeHub, caplog: pytest.LogCaptureFixture
) -> None:
    hub.say_golden("hub_announcement", hub="hub-2")
    await hass.async_block_till_done()

    assert agent_state(hass).state == STATE_UNAVAILABLE
    assert await spoken_error(hass) == "The hub is offline"
    assert "hub-2 has taken the place of hub-1" in caplog.text
