"""Commands are imported when they are asked for, and all of them are there."""

import json
import subprocess
import sys
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from appliance.cli.app import app

LOADED = """
import json, sys
from appliance.cli import main
sys.argv[1:] = {arguments}
try:
    main()
finally:
    print(json.dumps(sorted(sys.modules)))
"""
HEAVY = {"aiohttp", "amqtt", "cryptography", "llama_cpp", "numpy", "sklearn"}


def loaded(*arguments: str) -> set[str]:
    """Return the modules that a command has loaded in a process of its own."""
    command = [sys.executable, "-c", LOADED.format(arguments=list(arguments))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [
        (("--version",), set()),
        (("first-boot", "--help"), set()),
        (("console", "--help"), {"aiohttp"}),
        (("node", "--help"), {"aiohttp", "amqtt", "cryptography"}),
        (("expert", "--help"), {"aiohttp", "amqtt", "numpy"}),
    ],
)
def test_a_command_loads_no_more_than_it_needs(arguments: tuple[str, ...], allowed: set[str]) -> None:
    assert loaded(*arguments) & HEAVY <= allowed


def _walk(command: Any, context: Any) -> int:
    if not hasattr(command, "list_commands"):
        assert command.help, context.command_path
        return 1
    found = 0
    for name in command.list_commands(context):
        member = command.get_command(context, name)
        assert member.name == name
        found += _walk(member, context.__class__(member, info_name=name, parent=context))
    return found


def test_every_command_is_there_and_says_what_it_does() -> None:
    root = typer.main.get_command(app)
    with root.make_context("rouse", ["--help"], resilient_parsing=True) as context:
        assert _walk(root, context) > 50


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nodee"], "No such command 'nodee'. Did you mean 'node'"),
        (["power", "simulat"], "No such command 'simulat'. Did you mean 'simulate'"),
    ],
)
def test_a_wrong_name_is_told_which_is_similar(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert said in result.stderr
