"""Whatever the files and variables hold, loading gives settings or a SettingsError."""

import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from appliance.settings import SettingsError, load
from appliance.settings.keys import Leaf, find, keys_of, leaves
from appliance.settings.model import Settings
from appliance.settings.show import as_json, rows

LEAVES = list(leaves(keys_of(Settings), ("experts", "small")))
WORDS = ["gateway", "port", "experts", "small", "node", "groups", "'a b'", '""', "x"]
MARKS = [
    "[",
    "]",
    "[[",
    "]]",
    "=",
    ".",
    ",",
    "{",
    "}",
    "\n",
    "\r\n",
    "\r",
    "#",
    "\\",
    "\\u0000",
    "\ufeff",
    " ",
]
QUOTES = ['"', "'", '"""', "'''"]
NUMBERS = ["1", "-1", "1e9", "nan", "inf", "true", "1979-05-27T07:32:00Z", "07:32:00"]
PIECES = st.sampled_from([*WORDS, *MARKS, *QUOTES, *NUMBERS])
TOML_LIKE = st.lists(PIECES, max_size=30).map("".join)
SCALARS = st.one_of(st.text(), st.booleans(), st.integers(), st.floats(), st.dates(), st.none())
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)

slowly = settings(deadline=None)


def outcome(files: dict[str, bytes], environ: dict[str, str]) -> SettingsError | None:
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            path = Path(folder, name)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
        try:
            loaded = load(Path(folder), environ, "attic")
        except SettingsError as error:
            return error
    as_json(rows(loaded))
    return None


@slowly
@given(st.binary() | st.text().map(lambda text: text.encode("utf-8", "replace")) | TOML_LIKE.map(str.encode))
@example(b"a." * 5000 + b"a = 1")
@example(b"node = " + b"{a = " * 300 + b"1" + b"}" * 300)
@example(b"node.roles = " + b"[" * 300 + b"]" * 300)
@example(b"gateway.port = 0x" + b"f" * 10_000)
@example(b"gateway.connect_timeout = 1e999")
def test_any_text(content: bytes) -> None:
    outcome({"rouse.toml": content, "groups/all.toml": content}, {})


def as_toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {as_toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(as_toml, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value) if isinstance(value, str) else str(value)


@slowly
@given(st.dictionaries(st.sampled_from(LEAVES) | st.lists(st.text(max_size=5), min_size=1).map(tuple), VALUES))
def test_any_tree(tree: dict[tuple[str, ...], Any]) -> None:
    lines = [f"{'.'.join(map(json.dumps, path))} = {as_toml(value)}" for path, value in tree.items()]
    outcome({"rouse.toml": "\n".join(lines).encode("utf-8", "replace")}, {})


@slowly
@given(st.sampled_from(LEAVES), VALUES)
def test_one_value_of_any_type(path: tuple[str, ...], value: Any) -> None:
    leaf = find(keys_of(Settings), path)
    assert isinstance(leaf, Leaf)
    content = f"{'.'.join(path)} = {as_toml(value)}".encode("utf-8", "replace")
    error = outcome({"rouse.toml": content}, {"ROUSE_EXPERTS__SMALL__MODEL": "a"})
    if leaf.secret and error is not None and isinstance(value, int) and not isinstance(value, bool):
        assert str(value) not in str(error).rpartition("password: ")[2]


@slowly
@given(st.dictionaries(st.sampled_from(LEAVES).map("__".join) | st.text(max_size=9), st.text() | TOML_LIKE))
def test_any_environment(variables: dict[str, str]) -> None:
    outcome({}, {f"ROUSE_{name.upper()}": text for name, text in variables.items()})


@slowly
@given(st.text(max_size=70))
def test_any_group_name(name: str) -> None:
    outcome({}, {"ROUSE_NODE__GROUPS": json.dumps([name])})
