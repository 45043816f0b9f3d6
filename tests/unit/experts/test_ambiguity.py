from typing import Any

import pytest

from appliance.experts.chat.ambiguity import may_be_ambiguous

OBJECT = {"type": "object"}
PLAIN: tuple[Any, ...] = (
    {},
    {"type": "object", "properties": {"a": {"type": ["string", "null"]}, "b": {"enum": ["x", "xy"]}}},
    {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": False},
    {"type": "object", "additionalProperties": {"type": "string"}},
    {"anyOf": [{"type": "string"}, {"type": "array", "items": OBJECT}, {"type": "null"}]},
    {"type": "array", "items": {"$ref": "#"}},
)
AMBIGUOUS: tuple[Any, ...] = (
    {"anyOf": [OBJECT, {"type": "object", "properties": {}}]},
    {"oneOf": [{"type": "integer"}, {"type": "number"}]},
    {"type": ["integer", "number"]},
    {"anyOf": [{"$ref": "#/$defs/a"}, {"type": "string"}]},
    {"anyOf": [True, {"type": "string"}]},
    {"anyOf": [{"enum": ["a"]}, {"type": "string"}]},
    {"anyOf": [{"type": ["string", "null"]}, {"type": "null"}]},
    {"type": "object", "properties": {"a": {}}, "additionalProperties": True},
    {"type": "null", "nullable": True},
    [{"type": "array", "items": {"type": "object", "properties": {"a": {"oneOf": [OBJECT, OBJECT]}}}}],
)


@pytest.mark.parametrize("schema", PLAIN)
def test_what_can_be_told_apart_by_its_beginning(schema: Any) -> None:
    assert not may_be_ambiguous(schema)


@pytest.mark.parametrize("schema", AMBIGUOUS)
def test_what_may_begin_alike(schema: Any) -> None:
    assert may_be_ambiguous(schema)
