"""The golden messages, which the hub's side reads too."""

from dataclasses import asdict, fields, is_dataclass
from typing import Any

import pytest
from fake_hub import READ, golden
from homeassistant.helpers.json import json_bytes
from homeassistant.util.json import json_loads

from custom_components.rouse import topics
from custom_components.rouse.messages import (
    AssistantMessage,
    ChatCancel,
    ChatRequest,
    ExposedEntity,
    PlugReading,
    PlugResult,
    PowerCommand,
    SystemMessage,
    Tool,
    ToolCall,
    ToolMessage,
    UpdateCommand,
    UserMessage,
    WakeHint,
)

REQUEST = ChatRequest(
    id="01JD0000000000000000000001",
    client="home-assistant",
    deadline=1795000000.25,
    conversation_id="01JD0000000000000000000000",
    language="en",
    instructions="Call me captain.",
    messages=(
        SystemMessage("You are a voice assistant for Home Assistant."),
        UserMessage("Turn on the kitchen light"),
        AssistantMessage("", (ToolCall("call-1", "HassTurnOn", {"name": "Kitchen Light"}),)),
        ToolMessage("call-1", "HassTurnOn", {"success": True}),
    ),
    tools=(
        Tool(
            "HassTurnOn",
            "Turns on a device",
            {"type": "object", "properties": {"name": {"type": "string"}, "area": {"type": "string"}}},
        ),
    ),
    entities=(ExposedEntity("light.kitchen", ("Kitchen Light", "Ceiling"), "light", "Kitchen", "off"),),
)


def read(message: dict[str, Any]) -> Any:
    for topic in topics.READ:
        if (levels := topic.levels(message["topic"])) is not None:
            return topic.decode(json_bytes(message["payload"]), levels)
    pytest.fail(f"nothing reads {message['topic']}")


def test_there_are_golden_messages() -> None:
    assert len(READ) >= 12


@pytest.mark.parametrize("name", sorted(READ))
def test_golden_message_is_read(name: str) -> None:
    message = golden(name)
    payload = message["payload"]

    parsed = read(message)

    assert is_dataclass(parsed)
    for field in fields(parsed):
        if field.name in payload:
            assert json_loads(json_bytes(getattr(parsed, field.name))) == _known(
                payload[field.name], getattr(parsed, field.name)
            )


def _known(golden_value: Any, value: Any) -> Any:
    """Reduce a golden value to the fields that the integration reads."""
    if is_dataclass(value) and not isinstance(value, type):
        return {key: golden_value[key] for key in asdict(value)}
    if isinstance(value, list) and isinstance(golden_value, list):
        return [_known(*pair) for pair in zip(golden_value, value, strict=True)]
    return golden_value


def test_golden_request_is_what_is_sent() -> None:
    message = golden("chat_request")

    assert json_loads(json_bytes(REQUEST)) == message["payload"]
    assert topics.requests("home") == message["topic"]


def test_golden_cancellation_is_what_is_sent() -> None:
    message = golden("chat_cancel")
    cancel = ChatCancel("01JD0000000000000000000001", "home-assistant")

    assert json_loads(json_bytes(cancel)) == message["payload"]
    assert topics.cancellations("home") == message["topic"]


def test_golden_update_command_is_what_is_sent() -> None:
    message = golden("update_command")
    command = UpdateCommand("01JD0000000000000000000009", "install", "0.2.0")

    assert json_loads(json_bytes(command)) == message["payload"]
    assert topics.update_commands("attic") == message["topic"]


@pytest.mark.parametrize(
    ("name", "message", "topic"),
    [
        ("wake_hint", WakeHint("speech", "home", "Kitchen"), topics.HINTS),
        (
            "plug_result",
            PlugResult(
                "01JD000000000000000000000P", ok=True, message="switch.attic was off for 10 s and is on", watts=41.5
            ),
            topics.plug_results("attic"),
        ),
        ("plug_reading", PlugReading(41.5), topics.plug_readings("attic")),
        (
            "power_command_wake",
            PowerCommand("01JD000000000000000000000R", "wake", "switched on in Home Assistant"),
            topics.power_commands("attic"),
        ),
    ],
)
def test_golden_messages_about_power_are_what_is_sent(name: str, message: Any, topic: str) -> None:
    expected = golden(name)
    sent = {key: value for key, value in asdict(message).items() if value is not None}

    assert {key: expected["payload"][key] for key in sent} == sent
    assert topic == expected["topic"]


def test_replies_are_expected_where_they_are_sent() -> None:
    assert topics.REPLY.at(client="home-assistant") == golden("reply_text")["topic"]
