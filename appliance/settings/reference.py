"""Writes the reference part of docs/configuration.md from the settings model.

`python -m appliance.settings.reference --write docs/configuration.md` replaces everything below the
marker line; `--check` only says whether that would change anything.
"""

import argparse
import json
import sys
from pathlib import Path

from appliance.settings.keys import Group, Leaf, Named, keys_of
from appliance.settings.model import Settings
from appliance.settings.phrases import expected

MARKER = "<!-- Everything below is written by appliance/settings/reference.py; change the model instead. -->"


def reference() -> str:
    """Return the reference in Markdown: one heading for each table, one entry for each key."""
    return "\n".join(part for name, key in keys_of(Settings).keys.items() for part in _section(name, key))


def updated(document: str) -> str:
    """Return the document with its reference part made anew.

    Raises:
        ValueError: the marker line is missing.
    """
    head, marker, _ = document.partition(MARKER)
    if not marker:
        raise ValueError(f"there is no line {MARKER}")
    return f"{head}{marker}\n\n{reference()}"


def _section(name: str, key: Leaf | Group | Named) -> list[str]:
    if isinstance(key, Leaf):
        return _entry(name, key)
    table = name if isinstance(key, Group) else f"{name}.<name>"
    group = key if isinstance(key, Group) else key.each
    lines = [f"## `[{table}]`", "", group.description, ""]
    if isinstance(key, Named):
        there = ", ".join(f"`{default}`" for default in key.defaults) or "none"
        lines[2:3] = [f"{group.description} {key.description} There by default: {there}."]
    for inner, value in group.keys.items():
        lines += _section(f"{table}.{inner}", value)
    return lines


def _entry(name: str, leaf: Leaf) -> list[str]:
    if leaf.required:
        default = "required"
    elif leaf.default is None:
        default = "not set by default"
    else:
        default = f"default `{json.dumps(leaf.default, default=str, ensure_ascii=False)}`"
    secret = "; a secret, never shown" if leaf.secret else ""
    summary = f"*{expected(leaf.value_schema)}; {default}{secret}*"
    return [f"### `{name}`", "", summary, "", leaf.description, ""]


def main() -> None:
    """Write or check the document that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m appliance.settings.reference", description=__doc__)
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--write", action="store_true", help="bring the document up to date")
    mode.add_argument("--check", action="store_true", help="exit with 1 if the document is out of date")
    parser.add_argument("document", type=Path)
    arguments = parser.parse_args()
    old = arguments.document.read_text(encoding="utf-8")
    new = updated(old)
    if arguments.write:
        arguments.document.write_text(new, encoding="utf-8")
    elif old != new:
        sys.exit(f"{arguments.document} is out of date: run python -m appliance.settings.reference --write")


if __name__ == "__main__":
    main()
