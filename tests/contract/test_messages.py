"""The bus's contract: what both sides must accept, and what they must refuse."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator

from appliance.bus.asyncapi import document, message_types
from appliance.bus.errors import MalformedMessageError
from appliance.bus.topics import (
    ALL,
    CHAT_CANCEL,
    CHAT_REQUEST,
    EXPERT_STATUS,
    MAX_PAYLOAD_BYTES,
    REPLY,
    Topic,
)

FOLDER = Path(__file__).parent
GOOD = sorted(FOLDER.glob("messages/*.json"))
MALFORMED = sorted(FOLDER.glob("malformed/*.json"))
LEVELS = {"node": "attic", "expert": "small", "agent": "home", "client": "home-assistant"}
DOCUMENT = document()

slowly = settings(deadline=None)


def read(path: Path) -> tuple[str, Topic[Any], bytes]:
    golden = json.loads(path.read_text(encoding="utf-8"))
    families = [topic for topic in ALL if topic.parse(golden["topic"]) is not None]
    assert len(families) == 1
    if "payload_base64" in golden:
        return golden["topic"], families[0], base64.b64decode(golden["payload_base64"], validate=True)
    payload = golden["payload"]
    return (
        golden["topic"],
        families[0],
        (payload if isinstance(payload, str) else json.dumps(payload)).encode(),
    )


def address(topic: Topic[Any]) -> str:
    return topic.at(**{name: LEVELS[name] for name in topic.parameters})


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_a_good_message_decodes_and_comes_back_the_same(path: Path) -> None:
    name, topic, payload = read(path)
    message = topic.decode(name, payload)
    assert json.loads(topic.encode(message)) == json.loads(payload)


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_a_good_message_fits_the_documented_schema(path: Path) -> None:
    _, topic, payload = read(path)
    kinds = [{"$ref": f"#/components/schemas/{kind.__name__}"} for kind in message_types(topic)]
    schema = {"oneOf": kinds, "components": DOCUMENT["components"]}
    Draft7Validator(schema).validate(json.loads(payload))


def test_every_message_type_has_a_good_example() -> None:
    seen = {type(topic.decode(name, payload)) for name, topic, payload in map(read, GOOD)}
    assert seen == {kind for topic in ALL for kind in message_types(topic)}


@pytest.mark.parametrize("path", MALFORMED, ids=lambda path: path.stem)
def test_a_malformed_message_is_refused(path: Path) -> None:
    name, topic, payload = read(path)
    assert json.loads(path.read_text(encoding="utf-8"))["why"]
    with pytest.raises(MalformedMessageError) as caught:
        topic.decode(name, payload)
    assert caught.value.topic == name
    assert caught.value.reason.isprintable()


def test_a_long_message_is_refused_unread() -> None:
    payload = json.dumps({"state": "online", "note": "a" * MAX_PAYLOAD_BYTES}).encode()
    with pytest.raises(MalformedMessageError, match="bytes, at most 1000000 are allowed"):
        ALL[0].decode("rouse/v1/hub/status", payload)


def test_unknown_fields_are_ignored_and_the_last_of_a_repeated_key_counts() -> None:
    payload = b'{"id": "01JD0001", "client": "a", "client": "b", "later": {"version": [1e3]}}'
    message = CHAT_CANCEL.decode("rouse/v1/agents/home/cancellations", payload)
    assert json.loads(CHAT_CANCEL.encode(message)) == {"id": "01JD0001", "client": "b"}


def test_what_a_stranger_wrote_is_short_and_printable_in_the_reason() -> None:
    payload = json.dumps({"kind": "\x1b[31m\n" + "a" * 5000, "id": "01JD0001", "seq": 0}).encode()
    with pytest.raises(MalformedMessageError) as caught:
        REPLY.decode("rouse/v1/clients/a/replies", payload)
    assert caught.value.reason.isprintable()
    assert len(caught.value.reason) < 400


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


def accepts_or_refuses(topic: Topic[Any], payload: bytes) -> None:
    """Whatever is accepted can be sent on and means the same then."""
    name = address(topic)
    try:
        message = topic.decode(name, payload)
    except MalformedMessageError:
        return
    assert topic.decode(name, topic.encode(message)) == message


@slowly
@given(st.sampled_from(ALL), st.binary())
@example(CHAT_REQUEST, b"[" * 900_000)
@example(CHAT_REQUEST, b'{"a":' * 150_000)
@example(CHAT_REQUEST, b'{"deadline":' + b"9" * 100_000 + b"}")
@example(CHAT_REQUEST, b'{"deadline":1e' + b"9" * 100_000 + b"}")
@example(REPLY, b'{"kind": "\\udfff"}')
def test_any_bytes(topic: Topic[Any], payload: bytes) -> None:
    accepts_or_refuses(topic, payload)


@slowly
@given(st.sampled_from(ALL), JSON)
def test_any_json(topic: Topic[Any], value: object) -> None:
    accepts_or_refuses(topic, json.dumps(value).encode())


@slowly
@given(st.data())
def test_a_good_message_with_one_value_changed(data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(GOOD))
    _, topic, payload = read(path)
    message = json.loads(payload)
    holder: Any = message
    while True:
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(holder[key], dict | list) or not holder[key] or data.draw(st.booleans()):
            break
        holder = holder[key]
    holder[key] = data.draw(JSON)
    accepts_or_refuses(topic, json.dumps(message, ensure_ascii=data.draw(st.booleans())).encode("utf-8", "replace"))


@pytest.mark.parametrize("topic", ALL, ids=lambda topic: topic.name)
def test_parse_is_the_inverse_of_at(topic: Topic[Any]) -> None:
    levels = {name: LEVELS[name] for name in topic.parameters}
    assert topic.parse(topic.at(**levels)) == levels
    assert "{" not in topic.filter


SLUG = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,62}", fullmatch=True)


@slowly
@given(SLUG | st.text(), SLUG | st.text())
def test_any_levels(node: str, expert: str) -> None:
    try:
        topic = EXPERT_STATUS.at(node=node, expert=expert)
    except ValueError:
        return
    assert EXPERT_STATUS.parse(topic) == {"node": node, "expert": expert}
    assert [family for family in ALL if family.parse(topic) is not None] == [EXPERT_STATUS]


@slowly
@given(st.text() | st.lists(SLUG | st.sampled_from(["rouse", "v1", "nodes", "experts", ""])).map("/".join))
def test_any_topic(topic: str) -> None:
    for family in ALL:
        levels = family.parse(topic)
        if levels is not None:
            assert family.at(**levels) == topic


@pytest.mark.parametrize(
    "levels",
    [
        {},
        {"node": "attic"},
        {"node": "attic", "agent": "home"},
        {"node": "attic", "expert": "small", "agent": "home"},
        *(
            {"node": "attic", "expert": bad}
            for bad in [
                "",
                "+",
                "#",
                "a/b",
                "a\n",
                "a\0",
                "A",
                "-a",
                "ä",
                "a b",
                "$share",
                "a" * 64,
                "{node}",
            ]
        ),
    ],
)
def test_levels_that_are_refused(levels: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        EXPERT_STATUS.at(**levels)
