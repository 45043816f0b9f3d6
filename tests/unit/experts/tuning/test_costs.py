"""What a step costs, and how much prefill may join it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from appliance.experts.tuning.costs import GAP_RATIO, Cost, CostModel


def costs(*pairs: tuple[int, float]) -> tuple[Cost, ...]:
    return tuple(Cost(tokens=tokens, milliseconds=milliseconds) for tokens, milliseconds in pairs)


MODEL = CostModel(decode=costs((1, 8), (4, 24), (8, 40)), prefill=costs((4, 22), (16, 64), (64, 256)))


def test_between_measured_sizes_it_is_linear_and_beyond_them_it_goes_on() -> None:
    assert [MODEL.decode_ms(sequences) for sequences in (1, 2, 4, 8, 12)] == pytest.approx([8, 40 / 3, 24, 40, 56])
    assert MODEL.prefill_ms_per_token == 4
    assert MODEL.step_ms(0, 64) == 256
    assert MODEL.step_ms(0, 128) == 512
    assert MODEL.step_ms(8, 0) == 40
    assert MODEL.step_ms(4, 12) == pytest.approx(24 + 64 - 22)


def test_with_nothing_running_a_chunk_is_as_long_as_it_may_be() -> None:
    assert MODEL.prefill_chunk(0, limit=256) == 256


@given(
    decode=st.lists(st.floats(0.1, 500), min_size=4, max_size=4),
    prefill=st.lists(st.floats(0.1, 5000), min_size=4, max_size=4),
    sequences=st.integers(1, 16),
    limit=st.integers(1, 512),
)
def test_the_chunk_is_the_longest_that_keeps_the_gap(
    decode: list[float], prefill: list[float], sequences: int, limit: int
) -> None:
    model = CostModel(
        decode=costs(*zip((1, 2, 4, 8), sorted(decode), strict=True)),
        prefill=costs(*zip((4, 16, 64, 256), sorted(prefill), strict=True)),
    )
    chunk = model.prefill_chunk(sequences, limit=limit)
    allowed = GAP_RATIO * model.decode_ms(sequences)
    assert 1 <= chunk <= limit
    assert chunk == 1 or model.step_ms(sequences, chunk) <= allowed
    assert chunk == limit or model.step_ms(sequences, chunk + 1) > allowed or chunk == 1


@pytest.mark.parametrize(
    "decode",
    [[], [(2, 8)], [(1, 8), (1, 9)], [(4, 9), (1, 8)], [(1, 0)], [(1, float("nan"))], [(1, float("inf"))], [(0, 1)]],
)
def test_what_is_no_measurement_is_refused(decode: list[tuple[int, float]]) -> None:
    with pytest.raises(ValidationError):
        CostModel.model_validate(
            {
                "decode": [{"tokens": tokens, "milliseconds": milliseconds} for tokens, milliseconds in decode],
                "prefill": [{"tokens": 4, "milliseconds": 5.0}],
            }
        )
