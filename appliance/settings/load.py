"""Loads the settings: defaults < machine file < group files < host file < first-boot file < environment."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from appliance.settings.check import ValueProblems, check_layer, in_reading_order
from appliance.settings.environment import environment_layers
from appliance.settings.errors import InvalidSettingsError, Problem
from appliance.settings.files import UnreadableError, parse, read
from appliance.settings.keys import Group, Leaf, Named, find, keys_of
from appliance.settings.layers import Layer, Merged, merge
from appliance.settings.model import Settings
from appliance.settings.section import NAME_PATTERN
from appliance.settings.source import LayerName, Source

FIRST_BOOT_FILE = "rouse.toml"
MACHINE_FILE = "machine.toml"
"""Written by the deploys: what they have set up, such as who runs the experts. Whatever people write is stronger."""

_HOST_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    """The settings, and where each comes from."""

    settings: Settings
    sources: Mapping[str, Source]
    """By dotted key, for every value there is; a table of named tables that is empty counts as a value."""


def load(
    config_dir: Path, environ: Mapping[str, str], hostname: str, *, first_boot: tuple[Path, bytes] | None = None
) -> LoadedSettings:
    """Load and check the settings of one machine.

    Args:
        config_dir: Folder with `rouse.toml`, `machine.toml`, `groups/` and `hosts/`; any of them may be missing.
        environ: Environment variables; those that begin with `ROUSE_` are settings.
        hostname: Names the machine's file in `hosts/`.
        first_boot: A file and its content to take instead of `rouse.toml`, to see whether it is good.

    Raises:
        InvalidSettingsError: something is wrong; it names everything that is.
    """
    reader = _Reader(keys_of(Settings), config_dir)
    above = [
        *reader.file(f"hosts/{hostname}.toml" if _HOST_NAME.fullmatch(hostname) else None, "host"),
        *(
            reader.file(FIRST_BOOT_FILE, "first-boot")
            if first_boot is None
            else reader.content(*first_boot, "first-boot")
        ),
        *reader.environment(environ),
    ]
    machine = reader.file(MACHINE_FILE, "machine")
    merged = merge([*reader.defaults(), *machine, *reader.groups(merge(above)), *above])
    try:
        settings = Settings.model_validate(merged.tree)
    except ValidationError as error:
        settings = None
        reader.problems += ValueProblems(reader.root, merged, reader.incomplete).of(error)
    if settings is None or reader.problems:
        raise InvalidSettingsError(in_reading_order(reader.problems))
    return LoadedSettings(settings, _sources(reader.root, merged))


class _Reader:
    """Reads layers and gathers what is wrong with them."""

    def __init__(self, root: Group, config_dir: Path) -> None:
        self.root = root
        self.problems: list[Problem] = []
        self.incomplete = False
        self._config_dir = config_dir

    def defaults(self) -> list[Layer]:
        """Return the named tables that are there by default; the model knows all other defaults."""
        tree = {name: key.defaults for name, key in self.root.keys.items() if isinstance(key, Named)}
        return [Layer("default", tree)]

    def file(self, name: str | None, layer: LayerName) -> list[Layer]:
        """Return the file's layer, if there is one."""
        return self._read(lambda: read(self._config_dir / name, layer) if name is not None else None)

    def content(self, path: Path, content: bytes, layer: LayerName) -> list[Layer]:
        """Return the layer of a file that has been read already."""
        return self._read(lambda: parse(content, path, layer))

    def _read(self, reading: Callable[[], Layer | None]) -> list[Layer]:
        try:
            found = reading()
        except UnreadableError as error:
            self.problems.append(error.problem)
            self.incomplete = True
            return []
        return [self._checked(found)] if found is not None else []

    def environment(self, environ: Mapping[str, str]) -> list[Layer]:
        """Return the variables' layers."""
        layers, problems = environment_layers(self.root, environ)
        self.problems += problems
        return [self._checked(layer) for layer in layers]

    def groups(self, above: Merged) -> list[Layer]:
        """Return the layers of the groups that the stronger layers name."""
        layers = self.file("groups/all.toml", "group")
        names = above.tree.get("node", {}).get("groups", [])
        for index, name in enumerate(names if isinstance(names, list) else []):
            if isinstance(name, str) and re.fullmatch(NAME_PATTERN, name) and name != "all":
                layers += self._group(name, above.source(("node", "groups", index)))
        for layer in layers:
            if "groups" in layer.tree.get("node", {}):
                source = layer.source(("node", "groups"))
                text = "a group file can't choose groups: do it in the host file or in rouse.toml"
                self.problems.append(Problem(source, "node.groups", text))
        return layers

    def _group(self, name: str, asked_by: Source) -> list[Layer]:
        before = len(self.problems)
        layers = self.file(f"groups/{name}.toml", "group")
        if not layers and len(self.problems) == before:
            path = self._config_dir / "groups" / f"{name}.toml"
            self.problems.append(Problem(asked_by, "node.groups", f"there is no {path}"))
        return layers

    def _checked(self, layer: Layer) -> Layer:
        checked, problems = check_layer(self.root, layer)
        self.problems += problems
        return checked


def _sources(root: Group, merged: Merged) -> dict[str, Source]:
    sources: dict[str, Source] = {}

    def visit(path: tuple[str, ...], tree: Mapping[str, Any]) -> None:
        key = find(root, path)
        names = key.keys if isinstance(key, Group) else tree
        if isinstance(key, Leaf) or not names:
            origin = merged.origins.get(path)
            sources[".".join(path)] = origin.source(path) if origin is not None else Source("default")
            return
        for name in names:
            inner = tree.get(name, {})
            visit((*path, name), inner if isinstance(inner, Mapping) else {})

    visit((), merged.tree)
    return sources
