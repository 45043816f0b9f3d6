"""What keys there are: the settings model as a plain tree to walk.

Everything that deals with keys rather than values reads this tree: unknown keys, environment
variables, error texts, `rouse config show` and the reference documentation.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from appliance.settings.source import KeyPath


@dataclass(frozen=True, slots=True)
class Leaf:
    """A key with a value."""

    schema: Mapping[str, Any]
    """JSON Schema of the value."""
    default: Any
    required: bool
    description: str

    @property
    def value_schema(self) -> Mapping[str, Any]:
        """The schema without "or null", which TOML can't express."""
        choices: list[Mapping[str, Any]] = self.schema.get("anyOf", [self.schema])
        return next(choice for choice in choices if choice.get("type") != "null")

    @property
    def secret(self) -> bool:
        """Whether the value must never be shown."""
        return bool(self.value_schema.get("writeOnly", False))


@dataclass(frozen=True, slots=True)
class Group:
    """A table with fixed keys."""

    keys: Mapping[str, "Key"]
    description: str


@dataclass(frozen=True, slots=True)
class Named:
    """A table of tables, whose names the user chooses."""

    each: Group
    defaults: Mapping[str, Any]
    """What is there by default, as TOML would set it."""
    description: str


type Key = Leaf | Group | Named


@cache
def keys_of(model: type[BaseModel]) -> Group:
    """Return the keys of a settings model."""
    properties = model.model_json_schema()["properties"]
    keys = {name: _key(field, properties[name]) for name, field in model.model_fields.items()}
    return Group(keys, model.__doc__ or "")


def _key(field: FieldInfo, schema: Mapping[str, Any]) -> Key:
    kind = field.annotation
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return keys_of(kind)
    default: Any = None if field.is_required() else field.get_default(call_default_factory=True)
    if get_origin(kind) is Mapping:
        entry = get_args(kind)[1]
        names = {name: value.model_dump(exclude_unset=True) for name, value in default.items()}
        return Named(keys_of(entry), names, field.description or "")
    return Leaf(schema, default, field.is_required(), field.description or "")


def find(root: Group, path: KeyPath) -> Key | None:
    """Return what is at the path, where every name of a `Named` exists."""
    key: Key = root
    for part in path:
        if isinstance(key, Named):
            key = key.each
        elif isinstance(key, Group) and isinstance(part, str) and part in key.keys:
            key = key.keys[part]
        else:
            return None
    return key


def leaves(root: Group, names: KeyPath = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of every leaf; a name chosen by the user is taken from the same level of `names`."""
    pending: list[tuple[tuple[str, ...], Key]] = [((), root)]
    while pending:
        path, key = pending.pop(0)
        if isinstance(key, Leaf):
            yield path
        elif isinstance(key, Named):
            name = str(names[len(path)]) if len(names) > len(path) else "<name>"
            pending.insert(0, ((*path, name), key.each))
        else:
            pending[:0] = [((*path, name), value) for name, value in key.keys.items()]


def nearest(root: Group, path: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return the known path that was probably meant by an unknown one.

    The first unknown level is compared with its neighbours, and the whole path with all keys elsewhere: the
    latter finds `gateway_port` and keys that belong to another section.
    """
    for depth, part in enumerate(path):
        parent = find(root, path[:depth])
        if isinstance(parent, Group) and part not in parent.keys:
            return _nearest_to(root, parent, path, depth)
    return None


def _nearest_to(root: Group, parent: Group, path: tuple[str, ...], depth: int) -> tuple[str, ...] | None:
    beside = [(_likeness(part, path[depth]), (*path[:depth], part, *path[depth + 1 :])) for part in parent.keys]
    elsewhere = [
        (_likeness(".".join(leaf), ".".join(path)), leaf)
        for leaf in leaves(root, path)
        if leaf[:depth] + leaf[depth + 1 :] != path[:depth] + path[depth + 1 :]
    ]
    for candidates, cutoff in ((elsewhere, 0.9), (beside, 0.6), (elsewhere, 0.75)):
        best = max(candidates)
        if best[0] >= cutoff:
            return best[1]
    return None


def _likeness(one: str, other: str) -> float:
    return SequenceMatcher(None, one, other).ratio()
