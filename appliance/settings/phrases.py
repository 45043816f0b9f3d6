"""Words for what a setting takes and what was found instead."""

import json
from collections.abc import Mapping
from datetime import date, time
from typing import Any

from appliance.settings.section import NAME_PATTERN

_LONGEST = 60
_KINDS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (bool, "a boolean"),
    (str, "a string"),
    (int, "an integer"),
    (float, "a number"),
    ((date, time), "a date or time"),
    (Mapping, "a table"),
)


def expected(schema: Mapping[str, Any]) -> str:
    """Say what a JSON Schema takes: `an integer from 0 to 65535`."""
    if "enum" in schema:
        return "one of " + ", ".join(quoted(choice) for choice in schema["enum"])
    match schema["type"]:
        case "integer":
            return "an integer" + _range(schema)
        case "number":
            unit = f" of {schema['unit']}" if "unit" in schema else ""
            return f"a number{unit}{_range(schema)}"
        case "array":
            return f"an array, each item {expected(schema['items'])}"
        case "string":
            return _string(schema)
    return "true or false"


def _string(schema: Mapping[str, Any]) -> str:
    if schema.get("pattern") == NAME_PATTERN:
        return "a name of at most 63 lower-case letters, digits, - and _"
    return "a path" if schema.get("format") == "path" else "a string"


def _range(schema: Mapping[str, Any]) -> str:
    low, high, above = schema.get("minimum"), schema.get("maximum"), schema.get("exclusiveMinimum")
    if above is not None:
        return f" above {above}" + (f" and at most {high}" if high is not None else "")
    if low is not None and high is not None:
        return f" from {low} to {high}"
    return f" of at least {low}" if low is not None else ""


def found(value: object) -> str:
    """Show a value from a file or variable in one short line."""
    match value:
        case bool() | str():
            return quoted(value)
        case int():
            return str(value) if value.bit_length() <= 64 else "a very large integer"
        case float():
            return str(value)
        case date() | time():
            return value.isoformat()
    return kind(value)


def kind(value: object) -> str:
    """Name a value's type only, as is right for a secret."""
    return next((name for types, name in _KINDS if isinstance(value, types)), "an array")


def quoted(value: str | bool) -> str:  # noqa: FBT001 - it is the value, not a switch
    """Quote text as TOML does, without control characters and not longer than a line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    short = value if len(value) <= _LONGEST else value[:_LONGEST] + "…"
    return "".join(
        character if character.isprintable() else json.dumps(character)[1:-1]
        for character in json.dumps(short, ensure_ascii=False)
    )
