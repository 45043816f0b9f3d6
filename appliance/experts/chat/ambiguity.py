"""Which schemas describe texts that can be read in several ways at once.

llama.cpp's grammar engine follows all readings of a text, and their number may double with every bracket: a list whose
items are either of two kinds of such lists. A schema that may be like that is for an engine with limits.
"""

from collections.abc import Mapping
from typing import Any

_UNIONS = ("anyOf", "oneOf")
_NUMBERS = {"integer": "number"}
_KINDS = ("object", "array", "string", "number", "boolean", "null")


def may_be_ambiguous(schema: object) -> bool:
    """Whether alternatives anywhere in a JSON Schema may begin alike. Errs on the side of yes; linear in the schema."""
    waiting: list[object] = [schema]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting.extend(value)
        elif isinstance(value, Mapping):
            if _begins_alike(value):
                return True
            waiting.extend(value.values())
    return False


def _begins_alike(schema: Mapping[str, Any]) -> bool:
    """Whether the alternatives of this schema itself may: not those within them."""
    if schema.get("additionalProperties", False) is not False and schema.get("properties"):
        return True
    for union in _UNIONS:
        if isinstance(members := schema.get(union), list) and len(members) > 1:
            kinds = [kind for member in members for kind in _kinds(member)]
            if "" in kinds or len(set(kinds)) < len(kinds):
                return True
    kinds = _kinds(schema)
    return len(set(kinds)) < len(kinds)


def _kinds(schema: object) -> list[str]:
    """Return the kinds of values that a schema allows, an empty text for what is not plain to see."""
    if not isinstance(schema, Mapping):
        return [""]
    kinds = schema.get("type")
    listed = kinds if isinstance(kinds, list) else [kinds]
    named = [_NUMBERS.get(kind, kind) if isinstance(kind, str) else "" for kind in listed]
    return [kind if kind in _KINDS else "" for kind in named] + (["null"] if schema.get("nullable") is True else [])
