import json
from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import JsonValue

from appliance.agents.prompt import MAX_NAMES, build_prompt
from appliance.bus.messages import (
    AssistantMessage,
    ChatMessage,
    ChatRequest,
    ExposedEntity,
    SystemMessage,
    Tool,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from appliance.settings.model import AgentSettings

TURN_ON = Tool(
    name="HassTurnOn",
    description="Turns on a device",
    parameters={
        "type": "object",
        "properties": {"name": {"type": "string"}, "area": {"type": "string"}, "level": {"type": "integer"}},
        "required": [],
    },
)
KITCHEN = ExposedEntity(entity_id="light.kitchen", names=("Kitchen Light", "Ceiling"), domain="light", area="Kitchen")
PORCH = ExposedEntity(entity_id="light.porch", names=("Porch Light",), domain="light")


def request(
    *messages: ChatMessage,
    tools: tuple[Tool, ...] = (),
    entities: tuple[ExposedEntity, ...] = (),
    language: str = "en",
) -> ChatRequest:
    return ChatRequest(
        id="request-1",
        client="house",
        deadline=1e10,
        conversation_id="c",
        language=language,
        messages=messages,
        tools=tools,
        entities=entities,
    )


def build_body(asked: ChatRequest, agent: AgentSettings) -> Mapping[str, Any]:
    return build_prompt(asked, agent).body


def roles(body: Mapping[str, Any]) -> list[str]:
    return [message["role"] for message in body["messages"]]


def test_a_conversation_with_a_tool_call_becomes_openai_messages() -> None:
    call = ToolCall(id="call-1", name="HassTurnOn", arguments={"name": "Kitchen Light"})
    body = build_body(
        request(
            SystemMessage(text="Be brief."),
            UserMessage(text="Light!"),
            AssistantMessage(tool_calls=(call,)),
            ToolMessage(call_id="call-1", name="HassTurnOn", result={"success": True}),
        ),
        AgentSettings(prompt="You are Rouse.", prompt_style="full"),
    )
    assert body["messages"] == [
        {"role": "system", "content": "You are Rouse.\nBe brief."},
        {"role": "user", "content": "Light!"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "call-1",
                    "type": "function",
                    "function": {"name": "HassTurnOn", "arguments": '{"name": "Kitchen Light"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "call-1", "content": '{"success": true}'},
    ]
    assert "tools" not in body


def test_names_and_areas_are_limited_to_those_of_the_house() -> None:
    body = build_body(request(UserMessage(text="Light!"), tools=(TURN_ON,), entities=(KITCHEN, PORCH)), AgentSettings())
    parameters = body["tools"][0]["function"]["parameters"]
    assert parameters["properties"] == {
        "name": {"type": "string", "enum": ["Kitchen Light", "Ceiling", "Porch Light"]},
        "area": {"type": "string", "enum": ["Kitchen"]},
        "level": {"type": "integer"},
    }
    assert TURN_ON.parameters["properties"]["name"] == {"type": "string"}, "the request is not changed"


def test_a_house_with_very_many_names_is_not_squeezed_into_a_grammar() -> None:
    many = tuple(ExposedEntity(entity_id=f"light.l{n}", names=(f"L{n}",), domain="light") for n in range(MAX_NAMES + 1))
    body = build_body(request(UserMessage(text="Light!"), tools=(TURN_ON,), entities=many), AgentSettings())
    assert "enum" not in body["tools"][0]["function"]["parameters"]["properties"]["name"]


def test_a_models_call_gets_home_assistants_name_back() -> None:
    tool = TURN_ON.model_copy(update={"name": "intent__HassTurnOn"})
    prompt = build_prompt(request(UserMessage(text="Light!"), tools=(tool,)), AgentSettings())
    assert prompt.body["tools"][0]["function"]["name"] == "HassTurnOn"
    call = ToolCall(id="call-1", name="HassTurnOn", arguments={"name": "Kitchen Light"})
    assert prompt.restore(call) == call.model_copy(update={"name": "intent__HassTurnOn"})
    unknown = call.model_copy(update={"name": "HassDance"})
    assert prompt.restore(unknown) == unknown


def test_the_full_style_leaves_names_results_and_home_assistants_prompt_alone() -> None:
    tool = TURN_ON.model_copy(update={"name": "intent__HassTurnOn"})
    call = ToolCall(id="call-1", name=tool.name, arguments={"name": "Kitchen Light"})
    result: JsonValue = {"response_type": "action_done", "speech": {}, "data": {"success": [], "failed": []}}
    asked = request(
        SystemMessage(text="A long text."),
        UserMessage(text="Light!"),
        AssistantMessage(tool_calls=(call,)),
        ToolMessage(call_id="call-1", name=tool.name, result=result),
        tools=(tool,),
    )
    prompt = build_prompt(asked, AgentSettings(prompt_style="full"))
    assert prompt.body["tools"][0]["function"]["name"] == tool.name
    assert [message["role"] for message in prompt.body["messages"]] == ["system", "user", "assistant", "tool"]
    assert prompt.body["messages"][0]["content"] == "A long text."
    assert prompt.body["messages"][2]["tool_calls"][0]["function"]["name"] == tool.name
    assert json.loads(prompt.body["messages"][3]["content"]) == result
    assert prompt.restore(call) == call


def test_examples_come_between_the_instructions_and_the_user() -> None:
    body = build_body(request(UserMessage(text="Light!"), tools=(TURN_ON,)), AgentSettings())
    assert roles(body)[0] == "system"
    assert len(body["messages"]) > 2
    assert body["messages"][-1] == {"role": "user", "content": "Light!"}


@pytest.mark.parametrize(
    "settings",
    [AgentSettings(examples=False), AgentSettings(control=False)],
    ids=["no examples", "no control"],
)
def test_examples_can_be_left_out(settings: AgentSettings) -> None:
    body = build_body(request(UserMessage(text="Light!"), tools=(TURN_ON,)), settings)
    assert roles(body) == ["system", "user"]
    assert ("tools" in body) == settings.control


def test_another_language_is_asked_for() -> None:
    german = build_body(request(UserMessage(text="Licht!"), language="de-CH"), AgentSettings())
    english = build_body(request(UserMessage(text="Light!"), language="en-GB"), AgentSettings())
    assert "language with the code de-CH" in german["messages"][0]["content"]
    assert "language" not in english["messages"][0]["content"]


def test_a_compact_prompt_lists_the_devices_and_keeps_the_users_own_instructions() -> None:
    asked = request(SystemMessage(text="A long text."), UserMessage(text="Light!"), entities=(KITCHEN, PORCH))
    asked = asked.model_copy(update={"instructions": "Call me captain."})
    system = build_body(asked, AgentSettings())["messages"][0]["content"]
    assert "- Kitchen Light (light, Kitchen)\n- Porch Light (light)" in system
    assert "Call me captain." in system
    assert "A long text." not in system


def test_the_body_is_json() -> None:
    json.dumps(build_body(request(UserMessage(text="ü"), tools=(TURN_ON,)), AgentSettings()))
