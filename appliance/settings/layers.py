"""Layers of settings, and how the stronger goes over the weaker."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from appliance.settings.source import KeyPath, LayerName, Source

type Tree = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Layer:
    """What one file or one environment variable sets."""

    name: LayerName
    tree: Tree
    file: Path | None = None
    variable: str | None = None
    lines: Mapping[KeyPath, int] = field(default_factory=dict)

    def source(self, path: KeyPath) -> Source:
        """Return where the layer sets the path, or the nearest table around it."""
        around = (path[:length] for length in range(len(path), 0, -1))
        line = next((self.lines[part] for part in around if part in self.lines), None)
        return Source(self.name, self.file, line, self.variable)


@dataclass(frozen=True, slots=True)
class Merged:
    """All layers in one."""

    tree: dict[str, Any] = field(default_factory=dict)
    origins: dict[KeyPath, Layer] = field(default_factory=dict)
    """The strongest layer that mentions a table or sets a value."""

    def source(self, path: KeyPath) -> Source:
        """Return where the path's value, or what is around it, comes from."""
        for length in range(len(path), 0, -1):
            if (layer := self.origins.get(path[:length])) is not None:
                return layer.source(path)
        return Source("default")


def merge(layers: Iterable[Layer]) -> Merged:
    """Merge layers, weakest first: tables deeply, anything else is replaced."""
    merged = Merged()
    for layer in layers:
        _merge(merged, merged.tree, layer, layer.tree, ())
    return merged


def _merge(merged: Merged, into: dict[str, Any], layer: Layer, part: Tree, path: KeyPath) -> None:
    for key, value in part.items():
        merged.origins[*path, key] = layer
        if isinstance(value, Mapping):
            _merge(merged, into.setdefault(key, {}), layer, value, (*path, key))
        else:
            into[key] = value
