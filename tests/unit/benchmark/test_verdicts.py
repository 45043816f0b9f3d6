import json
from pathlib import Path

import pytest

from appliance.charts import Axis, Chart, Series
from tests.benchmarks.results import markdown, measured, must, write
from tests.benchmarks.scenario import Bound, Result, Row, median_ratio
from tests.benchmarks.scenarios import SCENARIOS
from tests.benchmarks.soak import growth


@pytest.mark.parametrize(
    ("value", "bound", "limit", "verdict"),
    [
        (1.0, "at least", 1.0, "PASS"),
        (0.99, "at least", 1.0, "FAIL"),
        (3.0, "more than", 3.0, "FAIL"),
        (0.0, "at most", 0.0, "PASS"),
        (3.0, "less than", 3.0, "FAIL"),
        (float("nan"), "less than", 3.0, "FAIL"),
        (None, "less than", 3.0, "not measured"),
    ],
)
def test_a_number_is_what_it_must_be_or_not(value: float | None, bound: Bound, limit: float, verdict: str) -> None:
    assert Row("x", value, "x", (bound, limit)).verdict == verdict


def test_a_scenario_that_broke_failed() -> None:
    assert Row("x", None, broken=True).verdict == "FAIL"
    assert not Row("x", 1.0).verdict


def test_ratios_are_of_measurements_that_belong_together() -> None:
    assert median_ratio([10, 100, 3], [5, 50, 1]) == 2


def test_how_rows_read() -> None:
    row = Row("what | ever", 1234.5, "ms", ("less than", 15.0), "note")
    assert (measured(row), must(row)) == ("1,234 ms", "less than 15 ms")
    assert measured(Row("x", None)) == "-"
    assert "what \\| ever | 1,234 ms | less than 15 ms | FAIL | note" in markdown({"a": Result([row])}, "here")


def test_everything_is_written(tmp_path: Path) -> None:
    chart = Chart("t", Axis("x"), Axis("y"), [Series("s", [(1, 2)])])
    files = write({"a": Result([Row("x", 1.0)], [chart], ["a note"], {"single": [1]})}, "here", tmp_path / "new")
    assert [file.name for file in files] == ["bench.json", "bench.md", "bench.svg"]
    assert json.loads(files[0].read_text())["scenarios"]["a"]["data"] == {"single": [1]}
    assert "- a: a note" in files[1].read_text()


def test_scenarios_have_names_of_their_own() -> None:
    names = [scenario.name for scenario in SCENARIOS]
    assert len(set(names)) == len(names)
    assert all("," not in name for name in names)


def test_growth_is_the_slope_after_the_warm_up() -> None:
    steep_then_flat = [(minute / 10, min(300.0, 100.0 + 100 * minute / 10)) for minute in range(101)]
    assert growth(steep_then_flat) == pytest.approx(0, abs=1e-6)
    assert growth([(minute / 10, 50 + 3 * minute / 10) for minute in range(101)]) == pytest.approx(3)
