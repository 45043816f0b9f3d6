"""Whatever arrives on the bus, Home Assistant goes on."""

import json
import logging
from typing import Any

import pytest
from fake_hub import AGENT, READ, FakeHub, finished, golden
from homeassistant.components import conversation
from homeassistant.core import Context, HomeAssistant
from homeassistant.helpers.json import json_bytes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from custom_components.rouse import topics
from custom_components.rouse.topics import MalformedPayloadError

MESSAGES = {name: golden(name) for name in sorted(READ)}
STATE = [name for name in MESSAGES if not name.startswith("reply_")]
REPLIES = [name for name in MESSAGES if name.startswith("reply_")]

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
BOUNDED = settings(
    max_examples=40,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@st.composite
def mutations(draw: st.DrawFn, payload: Any) -> Any:
    """Replace, remove or add something somewhere in a JSON value."""
    if isinstance(payload, dict) and payload and draw(st.integers(0, 9)):
        key = draw(st.sampled_from(sorted(payload)))
        match draw(st.sampled_from(["change", "remove", "add"])):
            case "change":
                return {**payload, key: draw(mutations(payload[key]))}
            case "remove":
                return {name: value for name, value in payload.items() if name != key}
            case _:
                return {**payload, draw(st.text(max_size=8)): draw(JSON)}
    if isinstance(payload, list) and payload and draw(st.booleans()):
        return [draw(mutations(payload[0])), *payload[1:]]
    return draw(JSON)


@st.composite
def raw_payloads(draw: st.DrawFn, payload: Any) -> bytes:
    """Draw bytes that are something like the payload."""
    good = json.dumps(payload).encode()
    match draw(st.sampled_from(["mutated", "cut", "noise", "damaged"])):
        case "mutated":
            return json.dumps(draw(mutations(payload))).encode()
        case "cut":
            return good[: draw(st.integers(0, len(good)))]
        case "noise":
            return draw(st.binary(max_size=64))
        case _:
            at = draw(st.integers(0, len(good) - 1))
            return good[:at] + draw(st.binary(max_size=3)) + good[at + 1 :]


def decode(topic: str, payload: bytes) -> Any:
    for family in topics.READ:
        if (levels := family.levels(topic)) is not None:
            return family.decode(payload, levels)
    pytest.fail(f"nothing reads {topic}")


@given(st.data())
@settings(deadline=None, database=None, max_examples=400)
def test_a_payload_is_valid_or_malformed(data: st.DataObject) -> None:
    message = MESSAGES[data.draw(st.sampled_from(list(MESSAGES)))]
    raw = data.draw(raw_payloads(message["payload"]))

    try:
        parsed = decode(message["topic"], raw)
    except MalformedPayloadError:
        return
    assert json_bytes(parsed)


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("hub_status", {"state": "asleep"}, "'state'"),
        ("hub_announcement", {"hub": "Hub 1"}, "'hub'"),
        ("hub_announcement", {"hub": "hub-1\n"}, "'hub'"),
        ("hub_announcement", {"name": "x" * 256}, "'name'"),
        ("agent_announcement", {"agent": "other"}, "agent is not home"),
        ("agent_announcement", {"languages": "de"}, "'languages'"),
        ("agent_announcement", {"languages": ["not a tag"]}, "'languages[0]'"),
        ("agent_announcement", {"control": 1}, "'control'"),
        ("node_announcement", {"node": "cellar"}, "node is not attic"),
        ("node_announcement", {"hardware": {}}, "'hardware."),
        ("node_telemetry", {"cpu": 1.01}, "'cpu'"),
        ("node_telemetry", {"cpu": True}, "'cpu'"),
        ("node_telemetry", {"uptime": 1e300}, "'uptime'"),
        ("node_telemetry", {"temperature": "hot"}, "'temperature'"),
        ("node_telemetry", {"generated_tokens": -1}, "'generated_tokens'"),
        ("node_telemetry", {"generated_tokens": True}, "'generated_tokens'"),
        ("node_telemetry", {"generated_tokens": 1.5}, "'generated_tokens'"),
        ("expert_status_ready", {"expert": "large"}, "expert is not small"),
        ("expert_status_ready", {"state": ["ready"]}, "'state'"),
        ("reply_text", {"seq": -1}, "'seq'"),
        ("reply_text", {"id": "../../x"}, "'id'"),
        ("reply_text", {"kind": None}, "'kind'"),
        ("reply_tool_call", {"call": {"id": "", "name": "x", "arguments": {}}}, "'call.id'"),
        ("reply_tool_call", {"call": {"id": "1", "name": "rm -rf", "arguments": {}}}, "'call.name'"),
        ("reply_tool_call", {"call": {"id": "1", "name": "x", "arguments": []}}, "'call.arguments'"),
        ("reply_finished", {"tool_calls": {}}, "'tool_calls'"),
    ],
)
def test_reasons(name: str, changes: dict[str, Any], reason: str) -> None:
    message = MESSAGES[name]

    with pytest.raises(MalformedPayloadError) as caught:
        decode(message["topic"], json.dumps({**message["payload"], **changes}).encode())

    assert reason in str(caught.value)


@pytest.mark.parametrize(
    "raw",
    [
        b"{",
        b"\xff\xfe",
        b'{"state": "online"} x',
        b'"\\ud800"',
        b"NaN",
        b"1e999",
        b"[" * 5000,
        b"1" * 1_000_001,
    ],
)
def test_no_json(raw: bytes) -> None:
    with pytest.raises(MalformedPayloadError):
        decode("rouse/v1/hub/status", raw)


@pytest.mark.parametrize(
    "topic",
    [
        "rouse/v1/nodes/Attic/status",
        "rouse/v1/nodes//status",
        "rouse/v1/nodes/attic/experts",
        "rouse/v1/nodes/attic/experts/small/more",
        "rouse/v1/hub/status\n",
        "rouse/v2/hub/status",
    ],
)
def test_other_topics_are_nobodys(topic: str) -> None:
    assert [family for family in topics.READ if family.levels(topic) is not None] == []


async def test_it_is_logged_once_per_topic(hass: HomeAssistant, hub: FakeHub, caplog: pytest.LogCaptureFixture) -> None:
    status, telemetry = MESSAGES["hub_status"]["topic"], MESSAGES["node_telemetry"]["topic"]
    for _ in range(3):
        hub.say(status, "garbage", retain=False)
        hub.say(telemetry, {"cpu": 2}, retain=False)
    await hass.async_block_till_done()

    assert caplog.text.count(f"Dropped a malformed message on {status}: no JSON") == 1
    assert caplog.text.count(f"Dropped a malformed message on {telemetry}: ") == 1
    assert not hass.states.is_state(AGENT, "unavailable"), "what was known stays"

    hub.say_golden("hub_status")
    hub.say(status, "garbage", retain=False)
    await hass.async_block_till_done()
    assert caplog.text.count(f"Dropped a malformed message on {status}: no JSON") == 2


async def test_a_stray_topic_is_ignored(hass: HomeAssistant, hub: FakeHub, caplog: pytest.LogCaptureFixture) -> None:
    caplog.clear()
    hub.say("rouse/v1/nodes/NOT A SLUG/status", {"state": "online"})
    hub.say("rouse/v1/hub/weather", b"\xff")
    await hass.async_block_till_done()

    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@BOUNDED
@given(data=st.data())
async def test_home_assistant_goes_on(
    hass: HomeAssistant, hub: FakeHub, caplog: pytest.LogCaptureFixture, data: st.DataObject
) -> None:
    caplog.clear()
    for _ in range(10):
        message = MESSAGES[data.draw(st.sampled_from(STATE))]
        hub.say(message["topic"], data.draw(raw_payloads(message["payload"])), retain=False)
    await hass.async_block_till_done()
    hub.come()
    hub.add_node()
    await hass.async_block_till_done()

    assert not hass.states.is_state(AGENT, "unavailable")
    assert hass.states.is_state("sensor.attic_expert_small", "ready")
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@BOUNDED
@given(data=st.data())
async def test_a_conversation_ends_whatever_the_replies(
    hass: HomeAssistant, hub: FakeHub, caplog: pytest.LogCaptureFixture, data: st.DataObject
) -> None:
    caplog.clear()
    replies = [data.draw(raw_payloads(MESSAGES[data.draw(st.sampled_from(REPLIES))]["payload"])) for _ in range(6)]

    def answer(request: dict[str, Any]) -> list[dict[str, Any]]:
        for reply in replies:
            raw = reply.replace(b"01JD0000000000000000000001", request["id"].encode())
            hub.say(f"rouse/v1/clients/{request['client']}/replies", raw, retain=False)
        return [{"seq": 99, **finished("The end.")}]

    hub.answers = [answer] * 10
    result = await conversation.async_converse(hass, "Hello", None, Context(), agent_id=AGENT)

    assert result.response.speech["plain"]["speech"]
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
