import json
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.settings.toml_lines import lines_of

DOCUMENT = '''\
# a comment
top = 1
a.b."c d".'e.f' = 2
inline = {x = 1, y.z = {q = [
  1, # one
  {deep = 2},
]}}
text = """
[not.a.table]
"""

["quoted table".sub] # a comment
"k\\u00e9y" = 1

[[rows]]
n = 1
[rows.sub]
m = 1
[[rows]]
n = 2
[[rows.inner]]
i = 1
[empty]
'''


def test_every_kind_of_key() -> None:
    tomllib.loads(DOCUMENT)
    assert lines_of(DOCUMENT) == {
        ("top",): 2,
        ("a",): 3,
        ("a", "b"): 3,
        ("a", "b", "c d"): 3,
        ("a", "b", "c d", "e.f"): 3,
        ("inline",): 4,
        ("inline", "x"): 4,
        ("inline", "y"): 4,
        ("inline", "y", "z"): 4,
        ("inline", "y", "z", "q"): 4,
        ("inline", "y", "z", "q", 0): 5,
        ("inline", "y", "z", "q", 1): 6,
        ("inline", "y", "z", "q", 1, "deep"): 6,
        ("text",): 8,
        ("quoted table",): 12,
        ("quoted table", "sub"): 12,
        ("quoted table", "sub", "kéy"): 13,
        ("rows",): 15,
        ("rows", 0): 15,
        ("rows", 0, "n"): 16,
        ("rows", 0, "sub"): 17,
        ("rows", 0, "sub", "m"): 18,
        ("rows", 1): 19,
        ("rows", 1, "n"): 20,
        ("rows", 1, "inner"): 21,
        ("rows", 1, "inner", 0): 21,
        ("rows", 1, "inner", 0, "i"): 22,
        ("empty",): 23,
    }


def test_an_empty_document() -> None:
    assert lines_of("") == {}


@pytest.mark.parametrize("depth", [50, 900])
def test_deep_keys(depth: int) -> None:
    path = ("a",) * depth
    assert lines_of(f"{'.'.join(path)} = 1")[path[:50]] == 1


KEYS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=6)


@settings(deadline=None)
@given(st.lists(KEYS, min_size=1, max_size=6, unique=True))
def test_any_key_is_found(keys: list[str]) -> None:
    quoted = [json.dumps(key, ensure_ascii=False) for key in keys]
    document = "\n".join(f"{key} = 1" for key in quoted)
    assert list(tomllib.loads(document)) == keys
    assert lines_of(document) == {(key,): line for line, key in enumerate(keys, 1)}
