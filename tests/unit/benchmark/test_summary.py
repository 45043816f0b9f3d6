import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.benchmark.guidellm.distribution import distribution
from appliance.benchmark.summary import PERCENTILES, Summary

VALUES = st.lists(st.floats(0, 1e6), min_size=1, max_size=200)


@given(VALUES)
def test_percentiles_are_numpys(values: list[float]) -> None:
    summary = Summary.of(values)
    assert summary is not None
    for name, percent in PERCENTILES.items():
        assert getattr(summary, name) == pytest.approx(np.percentile(values, percent))
    assert (summary.minimum, summary.maximum, summary.count) == (min(values), max(values), len(values))
    assert summary.mean == pytest.approx(statistics.fmean(values))
    assert summary.deviation == pytest.approx(statistics.pstdev(values), abs=1e-3)


def test_percentiles_of_a_hundred_and_one() -> None:
    summary = Summary.of([float(value) for value in range(101)])
    assert summary is not None
    assert (summary.p001, summary.p50, summary.p95, summary.p99, summary.p999) == (0.1, 50, 95, 99, 99.9)


def test_nothing_has_no_summary() -> None:
    assert Summary.of([]) is None


@given(VALUES)
def test_guidellms_percentiles_are_values_that_occur(values: list[float]) -> None:
    found = distribution(values)
    assert set(found["percentiles"].values()) <= set(values)
    assert found["total_sum"] == pytest.approx(sum(values))
    assert found["median"] == pytest.approx(np.percentile(values, 50, method="inverted_cdf"))


def test_weights_count() -> None:
    found = distribution([1.0, 2.0, 3.0], [1.0, 8.0, 0.0])
    assert (found["median"], found["mode"], found["count"], found["max"]) == (2, 2, 9, 2)
    assert found["mean"] == pytest.approx(17 / 9)


def test_guidellms_summary_of_nothing_is_zero() -> None:
    assert distribution([]) == distribution([1.0], [0.0])
    assert distribution([])["percentiles"]["p50"] == 0
