"""Finds everything that is wrong with layers, and says it in terms of files and keys."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from appliance.settings.errors import Problem
from appliance.settings.keys import Group, Key, Leaf, Named, find, nearest
from appliance.settings.layers import Layer, Merged, Tree
from appliance.settings.phrases import expected, found, kind
from appliance.settings.section import NAME_PATTERN
from appliance.settings.source import KeyPath, LayerName, Source, dotted

_NAME = {"type": "string", "pattern": NAME_PATTERN}
_CONTROL_CHARACTER = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def variable_of(path: tuple[str, ...]) -> str:
    """Return the environment variable that sets a key."""
    return "ROUSE_" + "__".join(path).upper()


def check_layer(root: Group, layer: Layer) -> tuple[Layer, list[Problem]]:
    """Return the layer without the keys that can't be right, and what is wrong with them.

    Keys and shapes are checked in each layer, so that a stronger layer hides no mistake in a weaker.
    """
    checker = _LayerChecker(root, layer)
    tree = checker.group((), root, layer.tree)
    return replace(layer, tree=tree), checker.problems


class _LayerChecker:
    def __init__(self, root: Group, layer: Layer) -> None:
        self.problems: list[Problem] = []
        self._root = root
        self._layer = layer

    def group(self, path: tuple[str, ...], group: Group, tree: Tree) -> dict[str, Any]:
        kept = {}
        for name, value in tree.items():
            inner = (*path, name)
            if name not in group.keys:
                self._unknown(inner)
            elif self._fits(inner, group.keys[name], value):
                kept[name] = self._inside(inner, group.keys[name], value)
        return kept

    def _inside(self, path: tuple[str, ...], key: Key, value: Any) -> Any:
        if isinstance(key, Group):
            return self.group(path, key, value)
        if isinstance(key, Named):
            return {
                name: self.group((*path, name), key.each, entry)
                for name, entry in value.items()
                if self._named_fits((*path, name), key, entry)
            }
        return value

    def _named_fits(self, path: tuple[str, ...], key: Named, value: Any) -> bool:
        if re.fullmatch(NAME_PATTERN, path[-1]) is None:
            self._wrong(path, f"{found(path[-1])} is not {expected(_NAME)}")
            return False
        return self._fits(path, key.each, value)

    def _fits(self, path: tuple[str, ...], key: Key, value: Any) -> bool:
        if isinstance(key, Leaf):
            why = _leaf_problem(key, value)
        else:
            why = None if isinstance(value, Mapping) else f"expected a table, found {found(value)}"
        if why is not None:
            self._wrong(path, why)
        return why is None

    def _unknown(self, path: tuple[str, ...]) -> None:
        variable = self._layer.variable
        full = path if variable is None else tuple(variable.removeprefix("ROUSE_").lower().split("__"))
        meant = nearest(self._root, full)
        hint = ""
        if meant is not None:
            hint = f"; did you mean {dotted(meant) if variable is None else variable_of(meant)}?"
        self._wrong(path, f"unknown {'key' if variable is None else 'setting'}{hint}")

    def _wrong(self, path: KeyPath, text: str) -> None:
        self.problems.append(Problem(self._layer.source(path), dotted(path), text))


def _leaf_problem(leaf: Leaf, value: Any) -> str | None:
    """Refuse what pydantic would take: true for 1, and text that can't be a path or be shown."""
    schema = leaf.value_schema
    if isinstance(value, Mapping) or (isinstance(value, bool) and schema.get("type") in {"integer", "number"}):
        return f"expected {expected(schema)}, found {found(value)}"
    if isinstance(value, str) and _CONTROL_CHARACTER.search(value):
        return f"expected {expected(schema)}, found a control character"
    if value == "" and schema.get("format") == "path":
        return 'expected a path, found ""'
    return None


@dataclass(frozen=True, slots=True)
class ValueProblems:
    """Turns the model's objections into problems."""

    root: Group
    merged: Merged
    incomplete: bool
    """Whether a file could not be read, so that missing values prove nothing."""

    def of(self, error: ValidationError) -> list[Problem]:
        """Return the problems, which never hold the value of a secret."""
        return [
            self._problem(details)
            for details in error.errors(include_url=False)
            if not (self.incomplete and details["type"] in {"missing", "conflict"})
        ]

    def _problem(self, details: ErrorDetails) -> Problem:
        path: KeyPath = details["loc"]
        if details["type"] == "missing":
            return Problem(self.merged.source(path), dotted(path), "required, but not set")
        if details["type"] == "conflict":
            path = (*path, details["ctx"]["key"])
            return Problem(self.merged.source(path), dotted(path), details["msg"])
        if details["type"] == "value_error":
            return Problem(self.merged.source(path), dotted(path), str(details["ctx"]["error"]))
        keys = tuple(part for part in path if isinstance(part, str))
        leaf = find(self.root, keys)
        text = details["msg"]
        if isinstance(leaf, Leaf):
            schema = leaf.value_schema["items"] if len(path) > len(keys) else leaf.value_schema
            say: Callable[[object], str] = kind if leaf.secret else found
            text = f"expected {expected(schema)}, found {say(details['input'])}"
        return Problem(self.merged.source(path), dotted(path), text)


def in_reading_order(problems: list[Problem]) -> list[Problem]:
    """Sort by layer, file and line."""
    order = get_args(LayerName)

    def place(source: Source) -> tuple[int, str, int, str]:
        return order.index(source.layer), str(source.file or ""), source.line or 0, source.variable or ""

    return sorted(problems, key=lambda problem: place(problem.source))
