import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from appliance.settings import LoadedSettings, UnknownKeyError
from appliance.settings.show import as_json, as_table, rows

type Load = Callable[..., LoadedSettings]
type Write = Callable[[str, str | bytes], Path]


def rendered(loaded: LoadedSettings, key: str | None = None) -> list[list[str]]:
    console = Console(file=StringIO(), width=200, color_system=None)
    console.print(as_table(rows(loaded, key)))
    assert isinstance(console.file, StringIO)
    return [line.split() for line in console.file.getvalue().splitlines()]


def test_table(write: Write, loaded: Load, tmp_path: Path) -> None:
    write("rouse.toml", "\n[gateway]\nport = 8200\nhost = '[bold]'")
    shown = rendered(loaded({"ROUSE_GATEWAY__CONNECT_TIMEOUT": "3"}), "gateway")
    assert shown == [
        ["Key", "Value", "From"],
        ["gateway.host", '"[bold]"', f"{tmp_path}/rouse.toml:4"],
        ["gateway.port", "8200", f"{tmp_path}/rouse.toml:3"],
        ["gateway.fallbacks", "[]", "default"],
        ["gateway.always_on", "not", "set", "default"],
        ["gateway.connect_timeout", "3.0", "environment", "variable", "ROUSE_GATEWAY__CONNECT_TIMEOUT"],
        ["gateway.first_token_timeout", "120.0", "default"],
        ["gateway.answer_timeout", "600.0", "default"],
        ["gateway.stream_timeout", "3600.0", "default"],
        ["gateway.probe_interval", "10.0", "default"],
        ["gateway.hedge_after", "not", "set", "default"],
        ["gateway.hedge_max_bytes", "4096", "default"],
        ["gateway.while_asleep", '"answer"', "default"],
        ["gateway.keep_alive_after", "not", "set", "default"],
        ["gateway.max_requests", "512", "default"],
        ["gateway.max_body_bytes", "33554432", "default"],
        ["gateway.externals", "{}", "default"],
    ]


def test_everything_is_shown(loaded: Load) -> None:
    result = loaded()
    assert [line[0] for line in rendered(result)[1:]] == list(result.sources)
    assert ["experts", "{}", "default"] in rendered(result)


def test_json(write: Write, loaded: Load, tmp_path: Path) -> None:
    write("rouse.toml", "paths.state = '/srv'")
    assert json.loads(as_json(rows(loaded({"ROUSE_PATHS__MODELS": "/m"}), "paths"))) == [
        {
            "key": "paths.state",
            "value": "/srv",
            "source": {
                "layer": "first-boot",
                "file": f"{tmp_path}/rouse.toml",
                "line": 1,
                "variable": None,
            },
        },
        {
            "key": "paths.models",
            "value": "/m",
            "source": {
                "layer": "environment",
                "file": None,
                "line": None,
                "variable": "ROUSE_PATHS__MODELS",
            },
        },
    ]


def test_secrets_are_masked(write: Write, loaded: Load) -> None:
    write("rouse.toml", "broker.password = 'hunter2'")
    result = loaded()
    assert rendered(result, "broker.password")[1][1] == '"********"'
    assert '"value": "********"' in as_json(rows(result, "broker.password"))
    assert "hunter2" not in f"{rendered(result)} {as_json(rows(result))} {result!r}"


def test_a_secret_that_is_not_set(loaded: Load) -> None:
    assert rendered(loaded(), "broker.password")[1][1:3] == ["not", "set"]


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("gateway.prot", "gateway.prot: unknown key; did you mean gateway.port?"),
        ("experts.small", "experts.small: unknown key"),
        ("gate", "gate: unknown key; did you mean gateway?"),
        ("", ": unknown key"),
    ],
)
def test_an_unknown_key(loaded: Load, key: str, message: str) -> None:
    with pytest.raises(UnknownKeyError) as caught:
        rows(loaded(), key)
    assert str(caught.value) == message


def test_a_table_of_tables_within_a_section(write: Write, loaded: Load, tmp_path: Path) -> None:
    write("rouse.toml", "[gateway.externals.cloud]\nurl = 'https://host/v1/'\nkey = 'sk-secret'")
    result = loaded({"ROUSE_GATEWAY__EXTERNALS__CLOUD__SLOTS": "8"})
    shown = rendered(result, "gateway.externals")
    assert ["gateway.externals.cloud.url", '"https://host/v1"', f"{tmp_path}/rouse.toml:2"] in shown
    assert ["gateway.externals.cloud.key", '"********"', f"{tmp_path}/rouse.toml:3"] in shown
    assert result.settings.gateway.externals["cloud"].slots == 8
    with pytest.raises(UnknownKeyError):
        rows(result, "gateway.externals.cluod")
