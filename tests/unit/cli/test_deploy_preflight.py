"""`rouse deploy` looks at machines before it changes them."""

import socket
from pathlib import Path

from typer.testing import CliRunner

from appliance.cli.app import app


def test_a_machine_that_is_unfit_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "hosts").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (tmp_path / "hosts/hub.toml").write_text(f"[node]\nroles = ['hub']\n[gateway]\nport = {port}\n")
        arguments = ["--config-dir", str(tmp_path), "deploy", "@local", "--as", "hub", "--yes"]
        result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert "@local: unfit: hub unfit; bad: " in result.stderr
    assert f"Port {port}" in result.stderr
    assert "rouse: unfit: @local as hub. `rouse preflight HOST` says why" in result.stderr
    assert result.stdout == ""
