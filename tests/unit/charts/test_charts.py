import math
import re
import xml.etree.ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from appliance.charts import Axis, Chart, Series, as_svg
from appliance.charts.axis import Scale, label

NUMBERS = st.floats(allow_nan=True, allow_infinity=True) | st.floats(0, 1e4)
POINTS = st.lists(st.tuples(NUMBERS, NUMBERS), max_size=12)


def parsed(svg: str) -> list[ET.Element]:
    return list(ET.fromstring(svg).iter())  # noqa: S314  # it is our own


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in parsed(svg) if element.tag.endswith("}text")]


def test_a_chart_has_its_titles_ticks_and_lines() -> None:
    speeds = Chart("Throughput", Axis("clients", ticks=(1, 4)), Axis("tokens/s"), [Series("ours", [(1, 80), (4, 120)])])
    svg = as_svg(speeds, speeds)
    found = texts(svg)
    assert found.count("Throughput") == 2
    assert {"clients", "tokens/s", "ours", "1", "4", "0", "100", "120"} <= set(found)
    assert svg.count("<circle") == 4
    assert "prefers-color-scheme" in svg


def test_points_may_have_labels() -> None:
    points = [(1.0, 80.0), (math.nan, 1.0), (4.0, 120.0), (5.0, 130.0)]
    svg = as_svg(Chart("t", Axis("x"), Axis("y"), [Series("s", points, labels=["first", "nowhere", "", "last <"])]))
    found = texts(svg)
    assert {"first", "last <"} <= set(found)
    assert "nowhere" not in found, "a point that can't be shown has no label either"


def test_values_lie_where_the_axis_says() -> None:
    linear = Scale(Axis("x"), [5, 10])
    assert (linear.at(0), linear.at(linear.ticks[-1])) == (0, 1)
    assert linear.at(5) == 0.5
    log = Scale(Axis("x", log=True), [1, 10_000])
    assert [round(log.at(value), 6) for value in (1, 10, 100, 10_000)] == [0, 0.25, 0.5, 1]
    assert not log.shows(0)
    assert not log.shows(math.nan)


def test_text_can_not_break_out_of_the_document() -> None:
    evil = "</text><script>alert(1)</script>&\x00\x1b\ud800"
    svg = as_svg(Chart(evil, Axis(evil), Axis(evil), [Series(evil, [(1, 1)])]))
    assert not [element for element in parsed(svg) if element.tag.endswith("script")]


@given(POINTS, st.booleans(), st.booleans())
def test_any_numbers_give_a_document_with_finite_places(
    points: list[tuple[float, float]],
    across: bool,  # noqa: FBT001  # drawn
    up: bool,  # noqa: FBT001  # drawn
) -> None:
    svg = as_svg(Chart("t", Axis("x", log=across), Axis("y", log=up), [Series("s", points), Series("empty", [])]))
    assert parsed(svg)
    assert not re.search(r"\b(nan|inf)\b", svg)


@given(st.lists(st.floats(-1e12, 1e12), min_size=1), st.booleans())
def test_every_value_lies_on_its_axis(values: list[float], log: bool) -> None:  # noqa: FBT001  # drawn
    scale = Scale(Axis("x", log=log), values)
    assert 2 <= len(scale.ticks) <= 40
    for value in values:
        if scale.shows(value):
            assert -1e-9 <= scale.at(value) <= 1 + 1e-9


def test_labels() -> None:
    assert [label(value) for value in (0, 0.05, 1, 1500, 2.5e7, 1e-9)] == ["0", "0.05", "1", "1,500", "2e7", "1e-9"]
