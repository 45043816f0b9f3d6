from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from appliance.settings import LoadedSettings

type Load = Callable[..., LoadedSettings]


@pytest.mark.parametrize(
    ("variable", "text", "key", "value"),
    [
        ("ROUSE_GATEWAY__PORT", "8200", "gateway.port", 8200),
        ("ROUSE_GATEWAY__PORT", "8_200", "gateway.port", 8200),
        ("ROUSE_GATEWAY__PORT", '"8200"', "gateway.port", 8200),
        ("ROUSE_GATEWAY__CONNECT_TIMEOUT", "3", "gateway.connect_timeout", 3.0),
        ("ROUSE_GATEWAY__HOST", "::1", "gateway.host", "::1"),
        ("ROUSE_GATEWAY__HOST", "'::1'", "gateway.host", "::1"),
        ("ROUSE_AGENTS__HOME__CONTROL", "false", "agents.home.control", False),
        ("ROUSE_AGENTS__HOME__CONTROL", "False", "agents.home.control", False),
        ("ROUSE_AGENTS__HOME__TITLE", "42", "agents.home.title", "42"),
        ("ROUSE_AGENTS__HOME__TITLE", "true", "agents.home.title", "true"),
        ("ROUSE_AGENTS__HOME__TITLE", "2026-01-01", "agents.home.title", "2026-01-01"),
        ("ROUSE_AGENTS__HOME__TITLE", "", "agents.home.title", ""),
        ("ROUSE_AGENTS__HOME__TITLE", "7 # not a comment", "agents.home.title", "7 # not a comment"),
        ("ROUSE_AGENTS__HOME__PROMPT", "1\nvalue2 = 2", "agents.home.prompt", "1\nvalue2 = 2"),
        ("ROUSE_AGENTS__HOME__PROMPT", "1\n[log]", "agents.home.prompt", "1\n[log]"),
        ("ROUSE_NODE__ROLES", '["hub"]', "node.roles", ["hub"]),
        ("ROUSE_BROKER__URL", "mqtt://x", "broker.url", "mqtt://x"),
        ("ROUSE_EXPERTS__SMALL__MODEL", "a.gguf", "experts.small.model", "a.gguf"),
        ("ROUSE_EXPERTS", '{a = {model = "b"}}', "experts.a.model", "b"),
        ("ROUSE_gateway__Port", "5", "gateway.port", 5),
    ],
)
def test_values(loaded: Load, variable: str, text: str, key: str, value: object) -> None:
    result = loaded({variable: text})
    at: Any = result.settings.model_dump(mode="json")
    for part in key.split("."):
        at = at[part]
    assert at == value
    assert result.sources[key].variable == variable


def test_secrets_are_text(loaded: Load) -> None:
    password = loaded({"ROUSE_BROKER__PASSWORD": "0123"}).settings.broker.password
    assert password is not None
    assert password.get_secret_value() == "0123"


def test_other_variables_are_ignored(loaded: Load, tmp_path: Path) -> None:
    result = loaded({"PATH": "/bin", "ROUSEX": "1", "ROUSE_CONFIG_DIR": str(tmp_path), "rouse_log__level": "x"})
    assert {source.layer for source in result.sources.values()} == {"default"}


@pytest.mark.parametrize(
    ("variable", "text", "complaint"),
    [
        ("ROUSE_GATEWAY__PROT", "1", "unknown setting; did you mean ROUSE_GATEWAY__PORT?"),
        ("ROUSE_GATWAY__PORT", "1", "unknown setting; did you mean ROUSE_GATEWAY__PORT?"),
        ("ROUSE_GATEWAY_PORT", "1", "unknown setting; did you mean ROUSE_GATEWAY__PORT?"),
        ("ROUSE_GATEWAY", "1", "expected a table, found 1"),
        ("ROUSE_GATEWAY__PORT__X", "1", "expected an integer from 0 to 65535, found a table"),
        ("ROUSE_GATEWAY__PORT", "", 'expected an integer from 0 to 65535, found ""'),
        ("ROUSE_GATEWAY__PORT", "[" * 5000, f'expected an integer from 0 to 65535, found "{"[" * 60}…"'),
        ("ROUSE_", "1", "unknown setting"),
        ("ROUSE___", "1", "unknown setting"),
        ("ROUSE_FOO__A", "1", "unknown setting"),
        ("ROUSE_NODE__TITLE", "a\x1b[31m", "expected a string, found a control character"),
        ("ROUSE_PATHS__STATE", "", 'expected a path, found ""'),
        ("ROUSE_EXPERTS__SMALL__SLOTS", "1", "required, but not set"),
    ],
)
def test_problems(complaints: Callable[..., list[str]], variable: str, text: str, complaint: str) -> None:
    assert complaints({variable: text}) == [f"environment variable {variable}: {complaint}"]


def test_every_unknown_variable_is_named(complaints: Callable[..., list[str]]) -> None:
    assert complaints({"ROUSE_FOO__A": "1", "ROUSE_FOO__B": "2"}) == [
        "environment variable ROUSE_FOO__A: unknown setting",
        "environment variable ROUSE_FOO__B: unknown setting",
    ]
