"""The command around pyinfra: what it refuses, asks and shows. What it does is in tests/deploys."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from appliance.cli.app import app
from appliance.cli.deploy_result import DeployResult
from pyinfra_deploys.events import (
    EVENT,
    Connected,
    Ended,
    Event,
    Note,
    OperationDone,
    PartBegun,
    PartFailed,
    Request,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "hosts").mkdir()
    (tmp_path / "hosts/hub.toml").write_text('[node]\nroles = ["hub"]\n')
    (tmp_path / "hosts/attic.toml").write_text('[node]\nroles = ["expert"]\n')
    return tmp_path


def deploy(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["--config-dir", str(folder), "deploy", *arguments])


def words(result: Result) -> str:
    """Return what was said, without the frames and line breaks of a terminal."""
    return " ".join(result.output.replace("│", " ").split())


def test_no_such_machine(folder: Path) -> None:
    result = deploy(folder, "shed", "--yes")
    assert result.exit_code == 2
    assert "(there are: attic, hub)" in words(result)


def test_wrong_settings(folder: Path) -> None:
    (folder / "hosts/attic.toml").write_text("[deploy]\nport = 70000\n")
    result = deploy(folder, "--yes")
    assert result.exit_code == 2
    assert "attic.toml:2: deploy.port: expected an integer from 1 to 65535" in words(result)


def test_limit_that_fits_nobody(folder: Path) -> None:
    result = deploy(folder, "--yes", "--limit", "voice")
    assert result.exit_code == 2
    assert "none of the machines (attic, hub) has such a role or name" in words(result)


def test_nobody_to_ask(folder: Path) -> None:
    result = deploy(folder)
    assert result.exit_code == 1
    assert "nobody can be asked: use --yes, or --dry to look only" in words(result)


def test_password_file_that_is_not_there(folder: Path) -> None:
    (folder / "hosts/attic.toml").write_text('[deploy]\nsudo_password_file = "/nowhere"\n')
    result = deploy(folder, "attic", "--yes")
    assert result.exit_code == 1
    assert "deploy.sudo_password_file: /nowhere can't be read" in words(result)


def test_unknown_part_is_wrong_usage(folder: Path) -> None:
    pytest.importorskip("pyinfra", reason="machines are deployed from a checkout with its development tools")
    result = deploy(folder, "attic", "--yes", "--part", "frewall")
    assert result.exit_code == 2
    assert "there is no part 'frewall' (there are: base," in words(result)


def test_unreachable_machine(folder: Path) -> None:
    pytest.importorskip("pyinfra", reason="machines are deployed from a checkout with its development tools")
    (folder / "hosts/attic.toml").write_text(
        f'[deploy]\naddress = "127.0.0.1"\nport = 1\nuser = "root"\nknown_hosts = "{folder / "known"}"\n'
    )
    result = deploy(folder, "attic", "--yes", "--json")
    assert result.exit_code == 1
    (machine,) = json.loads(result.stdout)["machines"]
    assert machine["machine"] == "attic"
    assert "Could not connect" in machine["error"]


def operation(outcome: str, text: str | None = None) -> OperationDone:
    return OperationDone.model_validate(
        {"machine": "attic", "part": "base", "title": "Write /x", "outcome": outcome, "text": text}
    )


def test_result() -> None:
    events: list[Event] = [
        Connected(machine="attic", parts=("base", "ssh")),
        Connected(machine="shed", error="no route"),
        PartBegun(machine="attic", part="base", operations=2),
        operation("changed"),
        operation("unchanged"),
        operation("failed", "disk full"),
        PartFailed(machine="attic", part="ssh", text="no key"),
        Note(level="warning", text="look here"),
        Note(level="error", text="said elsewhere"),
        Ended(succeeded=False),
    ]
    result = DeployResult()
    for event in events:
        result.take(EVENT.validate_json(event.model_dump_json()))
    assert list(result.failures()) == [
        "attic, base: Write /x failed\ndisk full",
        "attic, ssh: no key",
        "shed: no route",
    ]
    assert result.notes == ["look here"]
    attic, shed = result.as_json()["machines"]
    assert [(part["part"], part["changed"], part["unchanged"], part["failed"]) for part in attic["parts"]] == [
        ("base", 1, 1, 1),
        ("ssh", 0, 0, 0),
    ]
    assert shed["error"] == "no route"


def test_passwords_are_shown_to_the_other_process_only() -> None:
    request = Request.model_validate({"config_dir": "/x", "targets": ["attic"], "sudo_passwords": {"attic": "secret"}})
    assert "secret" not in repr(request)
    assert Request.model_validate_json(request.model_dump_json()).sudo_passwords["attic"].get_secret_value() == "secret"
