import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from typer.testing import CliRunner

from appliance.cli.app import app
from appliance.power.simulate.report import Report

type Run = Callable[..., Any]

BERLIN = ZoneInfo("Europe/Berlin")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    for name in [name for name in os.environ if name.startswith("ROUSE_")]:
        monkeypatch.delenv(name)

    def invoke(*arguments: str, **environ: str) -> Any:
        common = ["--config-dir", str(tmp_path), "power", "simulate", "--processes", "1"]
        return CliRunner().invoke(
            app, [*common, *arguments], env={"ROUSE_SYSTEM__TIME_ZONE": "Europe/Berlin", **environ}
        )

    return invoke


def report(result: Any) -> Report:
    assert result.exit_code == 0, result.output
    return Report.model_validate_json(result.stdout)


def recorded(folder: Path, days: int) -> Path:
    """Record a request on each day at 7:10."""
    first = datetime(2026, 3, 2, 7, 10, tzinfo=BERLIN)
    lines = [f"{(first + timedelta(days=day)).timestamp():.1f},small\n" for day in range(days)]
    path = folder / "requests.csv"
    path.write_text("time,expert\n" + "".join(lines))
    return path


def test_a_table_compares_four_policies(run: Run) -> None:
    result = run("--nodes", "5", "--days", "2", "--warm-up", "7")
    assert result.exit_code == 0
    for name in ("always on", "idle time", "idle time + schedule", "idle time + forecast"):
        assert name in result.stdout
    assert "5 nodes, 2 days, invented for 5 kinds of households" in result.stdout
    assert result.stderr == ""


def test_json_is_the_same_for_the_same_seed(run: Run) -> None:
    arguments = ("--nodes", "5", "--days", "2", "--warm-up", "7", "--json", "--profile", "couple")
    one, other, another = (report(run(*arguments, "--seed", seed)) for seed in ("3", "3", "4"))
    assert one.outcomes == other.outcomes
    assert one.outcomes != another.outcomes
    assert one.demand == "invented for couple"
    assert one.outcomes[0].saved_kwh == 0
    assert one.outcomes[0].policy == "always on"


def test_the_machine_is_the_one_of_the_settings(run: Run, tmp_path: Path) -> None:
    (tmp_path / "rouse.toml").write_text(
        "[power]\nidle_watts = 100\nbusy_watts = 100\nasleep_watts = 0\nawake = ['daily 00:00-24:00']\n"
    )
    found = report(run("--nodes", "2", "--days", "1", "--warm-up", "0", "--json"))
    always_on, idle, schedule, _ = found.outcomes
    assert always_on.kwh_per_node_year == pytest.approx(876.6)
    assert schedule.used_kwh == pytest.approx(always_on.used_kwh)
    assert schedule.met_asleep == 0
    assert idle.used_kwh < always_on.used_kwh / 2
    shorter = report(run("--nodes", "2", "--days", "1", "--warm-up", "0", "--json", "--idle-after", "60"))
    assert shorter.outcomes[1].used_kwh < idle.used_kwh


def test_a_recording_is_replayed(run: Run, tmp_path: Path) -> None:
    path = recorded(tmp_path, 42)
    found = report(run("--demand", str(path), "--json"))
    assert (found.nodes, found.days, found.warm_up_days) == (1, 21, 21)
    assert found.demand == "recorded in requests.csv"
    _, idle, _, forecast = found.outcomes
    assert idle.requests == idle.met_asleep == 21
    assert idle.added_latency.p50 > 1
    assert forecast.met_asleep == 0, "a habit that is kept each day is foreseen"
    assert forecast.forecasts.hits == 21
    fleet = report(run("--demand", str(path), "--json", "--nodes", "4", "--days", "7", "--warm-up", "28"))
    assert fleet.outcomes[1].requests == 28


def test_charts_are_drawn(run: Run, tmp_path: Path) -> None:
    result = run("--nodes", "3", "--days", "1", "--warm-up", "7", "--output", str(tmp_path / "out"))
    assert result.exit_code == 0
    assert "Written: " in result.stderr
    svg = (tmp_path / "out" / "simulation.svg").read_text()
    assert "Energy against added latency, invented for 5 kinds of households, 3 nodes" in svg
    assert "15 minutes" in svg
    written = Report.model_validate_json((tmp_path / "out" / "simulation.json").read_text())
    assert written.sample_nodes == 3
    assert {point.series for point in written.points} == {outcome.policy for outcome in written.outcomes}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--profile", "monks"), 2, "expected mixed, family"),
        (("--awake", "mondays 7-8"), 2, "expected days and hours"),
        (("--nodes", "0"), 2, "greater than or equal to 1"),
        (("--threshold", "0"), 2, "greater than or equal to 0.01"),
        (("--demand", "nowhere.csv"), 2, "does not exist"),
    ],
)
def test_wrong_usage(run: Run, arguments: tuple[str, ...], code: int, said: str) -> None:
    result = run(*arguments)
    assert result.exit_code == code
    assert said in " ".join(result.stderr.replace("│", " ").split())
    assert result.stdout == ""


def test_a_wrong_recording_is_one_line(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text("time,expert\n1764338400,small\nsoon,small\n")
    result = run("--demand", str(path))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        f"rouse: {path}:3: time: expected a Unix time, or one such as 2026-11-28T14:00:00+01:00 with its offset\n"
    )


def test_a_recording_that_is_too_short_is_said(run: Run, tmp_path: Path) -> None:
    result = run("--demand", str(recorded(tmp_path, 3)), "--days", "3", "--warm-up", "2")
    assert result.exit_code == 1
    assert "lasts 3 days, too few for 2 of learning and 3 that count" in result.stderr


def test_an_output_folder_that_can_not_be(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run("--nodes", "1", "--days", "1", "--warm-up", "0", "--output", str(tmp_path / "file" / "out"))
    assert result.exit_code == 1
    assert "can't be written" in result.stderr


def is_running(process: str) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except OSError:
        return False


def test_ctrl_c_ends_it_and_its_processes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "appliance", "--config-dir", str(tmp_path), "power", "simulate"]
    arguments = ["--nodes", "100000", "--days", "300", "--processes", "2"]
    process = subprocess.Popen(
        [*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    deadline = time.monotonic() + 60
    while len(started := children.read_text().split()) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(started) >= 2
    trackers = [child for child in started if b"resource_tracker" in Path(f"/proc/{child}/cmdline").read_bytes()]
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert not [child for child in started if child not in trackers and is_running(child)]
    deadline = time.monotonic() + 30
    while any(is_running(child) for child in trackers) and time.monotonic() < deadline:
        time.sleep(0.05)  # it ends by itself when nobody holds its pipe any more
    assert not [child for child in trackers if is_running(child)]


def test_the_json_is_a_report(run: Run) -> None:
    found = json.loads(run("--nodes", "1", "--days", "1", "--warm-up", "0", "--json").stdout)
    assert found["nodes"] == 1
    assert found["node_hours_per_second"] > 0
