import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from appliance.cli.app import app

type Run = Callable[..., Any]

ACCOUNT = {
    "version": 1,
    "since": 1_795_000_000.0,
    "used": 3.6e6,
    "saved": 7.2e6,
    "measured": 1.8e6,
    "idle_watts": 21.04,
    "days": {
        "2026-11-27": {"used": 1.8e6, "saved": 3.6e6, "busy": 3600, "idle": 7200, "asleep": 75_600},
        "2026-11-28": {"used": 1.8e6, "saved": 3.6e6, "busy": 0, "idle": 0, "asleep": 86_400},
    },
}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    for name in [name for name in os.environ if name.startswith("ROUSE_")]:
        monkeypatch.delenv(name)
    (tmp_path / "rouse.toml").write_text(f"[paths]\nstate = {json.dumps(str(tmp_path))}\n")
    (tmp_path / "node" / "power").mkdir(parents=True)

    def invoke(*arguments: str) -> Any:
        return CliRunner().invoke(app, ["--config-dir", str(tmp_path), "power", "energy", *arguments])

    return invoke


def test_the_account_as_a_table(run: Run, tmp_path: Path) -> None:
    (tmp_path / "node" / "power" / "energy.json").write_text(json.dumps(ACCOUNT))
    result = run()
    assert result.exit_code == 0
    assert "1.00 kWh used, 50% of it measured on the whole machine; 2.00 kWh saved" in result.stdout
    assert "against 21.0 W measured idle" in " ".join(result.stdout.split())
    assert ["2026-11-27", "0.500", "1.000", "1.0", "2.0", "21.0"] in [
        line.split() for line in result.stdout.splitlines()
    ]
    assert "2026-11-27" not in run("--days", "1").stdout


def test_the_account_as_json_and_as_a_chart(run: Run, tmp_path: Path) -> None:
    (tmp_path / "node" / "power" / "energy.json").write_text(json.dumps(ACCOUNT))
    result = run("--json", "--svg", str(tmp_path / "energy.svg"))
    found = json.loads(result.stdout)
    assert (found["used_kwh"], found["saved_kwh"], found["baseline"]) == (1.0, 2.0, "measured")
    assert found["days"]["2026-11-28"]["asleep_seconds"] == 86_400
    svg = (tmp_path / "energy.svg").read_text()
    assert "Energy by day, until 2026-11-28" in svg
    assert svg.count("<circle") == 4


def test_no_account_is_said(run: Run, tmp_path: Path) -> None:
    result = run()
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        f"rouse: there is no energy account in {tmp_path}/node/power/energy.json; "
        "`rouse node` keeps one, a minute after its start\n"
    )


def test_a_chart_that_can_not_be_written(run: Run, tmp_path: Path) -> None:
    (tmp_path / "node" / "power" / "energy.json").write_text(json.dumps(ACCOUNT))
    result = run("--svg", str(tmp_path / "rouse.toml" / "energy.svg"))
    assert result.exit_code == 1
    assert "can't be written" in result.stderr


@pytest.mark.parametrize("name", ["yesterday", "2026-13-40", "../etc"])
def test_days_that_are_none_are_damage(run: Run, tmp_path: Path, name: str) -> None:
    (tmp_path / "node" / "power" / "energy.json").write_text(json.dumps(ACCOUNT | {"days": {name: {}}}))
    assert run().exit_code == 1
    assert (tmp_path / "node" / "power" / "energy.broken").exists()
