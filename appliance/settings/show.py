"""The settings for people and for scripts; secrets are masked in both."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from appliance.settings.errors import UnknownKeyError
from appliance.settings.keys import Leaf, find, keys_of, nearest
from appliance.settings.load import LoadedSettings
from appliance.settings.model import Settings
from appliance.settings.source import Source

MASK = "********"


@dataclass(frozen=True, slots=True)
class Row:
    """One effective value."""

    key: str
    value: Any
    """As JSON has it; a secret is masked, and None means not set."""
    source: Source


def rows(loaded: LoadedSettings, prefix: str | None = None) -> list[Row]:
    """Return the effective values, in the model's order, or only those at a key or in its section.

    Raises:
        UnknownKeyError: there is nothing at `prefix`.
    """
    root = keys_of(Settings)
    values = loaded.settings.model_dump(mode="json")
    chosen = []
    for key, source in loaded.sources.items():
        if prefix is None or key == prefix or key.startswith(f"{prefix}."):
            path = tuple(key.split("."))
            value = values
            for part in path:
                value = value[part]
            leaf = find(root, path)
            masked = isinstance(leaf, Leaf) and leaf.secret and value is not None
            chosen.append(Row(key, MASK if masked else value, source))
    if prefix is not None and not chosen:
        meant = nearest(root, tuple(prefix.split(".")))
        raise UnknownKeyError(prefix, ".".join(meant) if meant else None)
    return chosen


def as_table(shown: Sequence[Row]) -> Table:
    """Return the rows as a table; what is not a default stands out."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("Key", "Value", "From"):
        table.add_column(heading, overflow="fold")
    for row in shown:
        value = "not set" if row.value is None else json.dumps(row.value, ensure_ascii=False)
        set_by_user = row.source.layer != "default"
        table.add_row(
            Text(row.key),
            Text(value, style="" if row.value is not None else "dim"),
            Text(str(row.source), style="green" if set_by_user else "dim"),
        )
    return table


def as_json(shown: Sequence[Row]) -> str:
    """Return the rows as a JSON array, for scripts."""
    entries = [
        {
            "key": row.key,
            "value": row.value,
            "source": {
                "layer": row.source.layer,
                "file": str(row.source.file) if row.source.file is not None else None,
                "line": row.source.line,
                "variable": row.source.variable,
            },
        }
        for row in shown
    ]
    return json.dumps(entries, indent=2, ensure_ascii=False)
