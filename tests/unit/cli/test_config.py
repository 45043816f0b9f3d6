import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from appliance import __version__
from appliance.cli.app import app

type Run = Callable[..., Any]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `rouse` with the temporary folder as its configuration and these variables."""
    for name in [name for name in os.environ if name.startswith("ROUSE_")]:
        monkeypatch.delenv(name)

    def invoke(*arguments: str, **environ: str) -> Any:
        return CliRunner().invoke(app, ["--config-dir", str(tmp_path), *arguments], env=environ)

    return invoke


def test_show(run: Run, tmp_path: Path) -> None:
    (tmp_path / "rouse.toml").write_text("log.level = 'debug'")
    result = run("config", "show", "log")
    assert result.exit_code == 0
    assert result.stdout.split() == [
        "Key",
        "Value",
        "From",
        "log.level",
        '"debug"',
        f"{tmp_path}/rouse.toml:1",
    ]


def test_show_json(run: Run) -> None:
    result = run("config", "show", "--json", "gateway.port", ROUSE_GATEWAY__PORT="1")
    assert result.exit_code == 0
    assert json.loads(result.stdout)[0]["value"] == 1


def test_show_of_an_unknown_key(run: Run) -> None:
    result = run("config", "show", "gateway.prot")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "gateway.prot: unknown key; did you mean gateway.port?\n"


def test_wrong_settings_are_one_line_each(run: Run, tmp_path: Path) -> None:
    (tmp_path / "rouse.toml").write_text("log.level = 1\nbroker.password = 424242")
    result = run("config", "show")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.splitlines() == [
        f'{tmp_path}/rouse.toml:1: log.level: expected one of "debug", "info", "warning", "error", found 1',
        f"{tmp_path}/rouse.toml:2: broker.password: expected a string, found an integer",
    ]


def test_check(run: Run, tmp_path: Path) -> None:
    (tmp_path / "rouse.toml").write_text("log.level = 'debug'")
    result = run("config", "check")
    assert (result.exit_code, result.stderr) == (0, "")
    assert re.fullmatch(r"The settings are valid: 1 set, \d+ at their defaults\.\n", result.stdout)


def test_check_of_wrong_settings(run: Run) -> None:
    result = run("config", "check", ROUSE_LOG__LEVL="debug")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == ("environment variable ROUSE_LOG__LEVL: unknown setting; did you mean ROUSE_LOG__LEVEL?\n")


def test_a_missing_folder_is_wrong_usage() -> None:
    result = CliRunner().invoke(app, ["--config-dir", "/nowhere/rouse", "config", "check"])
    assert result.exit_code == 2
    assert "/nowhere/rouse" in result.stderr


@pytest.mark.parametrize("arguments", [[], ["config"], ["config", "show"], ["config", "check"]])
def test_help_needs_no_valid_settings(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, [*arguments, "--help"], env={"ROUSE_LOG__LEVEL": "loud"})
    assert result.exit_code == 0
    assert "Usage" in result.stdout


def test_version() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout == f"rouse {__version__}\n"


def test_as_a_program(tmp_path: Path) -> None:
    (tmp_path / "rouse.toml").write_bytes(b"\xef\xbb\xbf[broker]\r\npassword = 'hunter2'\r\n")
    environ = {"ROUSE_CONFIG_DIR": str(tmp_path), "ROUSE_GATEWAY__PORT": "8200", "PATH": os.environ["PATH"]}
    result = subprocess.run(
        [sys.executable, "-m", "appliance", "config", "show", "--json"],
        check=True,
        capture_output=True,
        text=True,
        env=environ,
        cwd=Path(__file__).parents[3],
    )
    values = {entry["key"]: entry["value"] for entry in json.loads(result.stdout)}
    assert values["gateway.port"] == 8200
    assert values["broker.password"] == "********"
    assert "hunter2" not in result.stdout + result.stderr


def test_an_unforeseen_error_shows_no_local_variables(tmp_path: Path) -> None:
    program = (
        "import appliance.cli.command_line as c\n"
        "def fail(*_): secret = 'hunter' + '2'; raise RuntimeError('boom')\n"
        "c.load = fail\n"
        "from appliance.cli import main\n"
        "main()\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, "--config-dir", str(tmp_path), "config", "check"],
        check=False,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    assert result.returncode == 1
    assert "RuntimeError: boom" in result.stderr
    assert "hunter2" not in result.stderr
