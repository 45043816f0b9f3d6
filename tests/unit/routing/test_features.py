import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.routing.features import NgramFeaturiser


@given(st.text(max_size=2000) | st.text(st.characters(), max_size=50))
def test_every_text_has_a_vector_of_length_one_or_zero(text: str) -> None:
    vector = NgramFeaturiser()(text)
    assert vector.shape == (4096,)
    assert vector.dtype == np.float32
    length = float(np.linalg.norm(vector))
    assert length == pytest.approx(1.0, abs=1e-5) or length == 0.0


def test_surrogates_and_nothing() -> None:
    assert np.linalg.norm(NgramFeaturiser()("\ud800 a")) == pytest.approx(1.0)
    assert not NgramFeaturiser()(" \n\t ").any()
    assert np.linalg.norm(NgramFeaturiser()("x")) == pytest.approx(1.0)


def test_the_same_in_another_process_and_on_another_day() -> None:
    """A change of this sum means another REVISION: trained routers depend on it."""
    vector = NgramFeaturiser(bits=8)("Turn on the light, 21 °C")
    assert float(vector @ np.arange(256)) == pytest.approx(CHECK_SUM, abs=1e-3)


def test_likeness() -> None:
    featuriser = NgramFeaturiser()
    one, alike, other = (
        featuriser(text)
        for text in ("Turn on the light in the kitchen", "turn on the lights in the bedroom", "What is 12 plus 30?")
    )
    assert one @ alike > 0.4
    assert one @ other < 0.2


def test_digits_are_alike_and_the_end_of_a_long_text_counts() -> None:
    featuriser = NgramFeaturiser()
    assert featuriser("what is 12 + 34?") == pytest.approx(featuriser("what is 98 + 76?"))
    long = "lorem ipsum " * 1000
    assert featuriser(long) @ featuriser(long + "What is the sum of these?") < 0.99
    assert (featuriser(long + "x" * 100) != featuriser(long)).any()


CHECK_SUM = -115.15718329697847
