"""What experts have to know of the settings, as a file without secrets: whoever takes over an expert learns none."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from appliance.settings.keys import Group, Leaf, find, keys_of
from appliance.settings.model import Settings
from appliance.settings.source import KeyPath

HEAD = "# Written by the node daemon for the experts.\n"
SECTIONS = {"node", "paths", "broker", "experts", "rpc_worker", "log"}
PLACEHOLDER = "not-for-experts"
"""In place of a secret, so that what goes together with it is still as it was."""


def for_experts(settings: Settings) -> str:
    """Return a rouse.toml with the sections that experts read."""
    tree = settings.model_dump(mode="json", include=SECTIONS, exclude_defaults=True, exclude_none=True)
    return HEAD + "\n".join(_tables(keys_of(Settings), tree, ()))


def _tables(root: Group, tree: Mapping[str, Any], path: KeyPath) -> Iterator[str]:
    """Yield the lines of a table: its values, then the tables in it."""
    inner = []
    lines = []
    for key, value in tree.items():
        known = find(root, (*path, key))
        if isinstance(value, Mapping) and not isinstance(known, Leaf):
            inner.append((key, value))
        else:
            hidden = isinstance(known, Leaf) and known.secret
            lines.append(f"{_text(key)} = {_value(PLACEHOLDER if hidden else value)}")
    if path and (lines or not inner):
        yield f"[{'.'.join(_text(str(key)) for key in path)}]"
    yield from lines
    for key, value in inner:
        yield from _tables(root, value, (*path, key))
    if not path:
        yield ""


def _value(value: Any) -> str:
    """Write a value as TOML: inline tables have = where JSON has a colon; the rest is the same."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_text(key)} = {_value(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return _text(value) if isinstance(value, str) else json.dumps(value)


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
