"""Settings from environment variables: `ROUSE_BROKER__URL` is `broker.url`."""

import tomllib
from collections.abc import Mapping
from typing import Any

from appliance.settings.errors import Problem
from appliance.settings.keys import Group, Leaf, find
from appliance.settings.layers import Layer
from appliance.settings.source import Source

_PREFIX = "ROUSE_"
_NOT_SETTINGS = {"ROUSE_CONFIG_DIR", "ROUSE_API_KEY", "ROUSE_SUDO_PASSWORD"}


def environment_layers(root: Group, environ: Mapping[str, str]) -> tuple[list[Layer], list[Problem]]:
    """Return one layer for each variable, by name, and the problems with their text."""
    layers = []
    problems = []
    for variable in sorted(name for name in environ if name.startswith(_PREFIX)):
        if variable in _NOT_SETTINGS:
            continue
        try:
            environ[variable].encode()
            variable.encode()
        except UnicodeEncodeError:
            shown = variable.encode(errors="backslashreplace").decode()
            problems.append(Problem(Source("environment", variable=shown), None, "not UTF-8"))
            continue
        path = tuple(variable.removeprefix(_PREFIX).lower().split("__"))
        tree: Any = _value(environ[variable], find(root, path))
        for key in reversed(path):
            tree = {key: tree}
        layers.append(Layer("environment", tree, variable=variable))
    return layers, problems


def _value(text: str, key: object) -> Any:
    """Read a TOML value; what is none, or would turn a string setting into a number, is the text itself."""
    try:
        document = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    value = document["value"]
    of_strings = isinstance(key, Leaf) and key.value_schema.get("type") == "string"
    if len(document) > 1 or (of_strings and not isinstance(value, str)):
        return text
    return value
