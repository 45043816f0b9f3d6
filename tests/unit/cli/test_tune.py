"""`rouse tune` on settings and a model that are there or not."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from appliance.cli.app import app

MODEL = Path(__file__).parents[3] / "build/models/SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    if not MODEL.is_file():
        pytest.skip(f"there is no model at {MODEL}; run make setup")
    (tmp_path / "rouse.toml").write_text(
        f"[paths]\nstate = {json.dumps(str(tmp_path / 'state'))}\n"
        f"[experts.small]\nmodel = {json.dumps(str(MODEL))}\ncontext = 256\nslots = 2\n"
        f"[experts.none]\nmodel = {json.dumps(str(tmp_path / 'none.gguf'))}\n"
    )
    return tmp_path


def rouse(folder: Path, *arguments: str) -> tuple[int, str]:
    """Return the exit code and what was written: on standard output, or on standard error where that is empty."""
    result = CliRunner().invoke(app, ["--config-dir", str(folder), *arguments])
    return result.exit_code, result.stdout or result.stderr


@pytest.mark.model
def test_it_measures_and_says_whether_the_result_can_be_relied_on(folder: Path) -> None:
    code, output = rouse(folder, "tune", "small", "--show", "--json")
    assert code == 0, output
    assert json.loads(output) == [{"expert": "small", "threads": None, "note": "not measured yet"}]
    code, output = rouse(folder, "tune", "small", "--json")
    assert code == 0, output
    (measured,) = json.loads(output)
    assert measured["threads"] >= 1
    assert list(measured["decode_ms"]) == ["1", "2"]
    kept = [*(folder / "state" / "tuning").glob("*.json")]
    code, output = rouse(folder, "tune", "small", "--show", "--json")
    (shown,) = json.loads(output)
    if measured["note"].startswith("doubtful"):
        assert not kept
        assert shown["note"] == "not measured yet"
    else:
        assert len(kept) == 1
        assert shown["decode_ms"] == measured["decode_ms"]
        assert shown["note"].startswith("measured 2")


def test_what_is_not_there_is_one_clear_line(folder: Path) -> None:
    assert rouse(folder, "tune", "large") == (
        1,
        "rouse: there is no expert 'large' in the settings (there are: small, none)\n",
    )
    code, output = rouse(folder, "tune", "none")
    assert code == 1
    assert output == f"rouse: {folder / 'none.gguf'}: No such file or directory\n"
