import pytest

from appliance.experts.settings import EngineSettings


@pytest.mark.parametrize(("trained", "context"), [(2048, 2048), (8192, 4096), (0, 4096)])
def test_no_cells_are_kept_for_more_than_the_model_was_trained_for(trained: int, context: int) -> None:
    limited = EngineSettings(context_tokens=4096, slots=3).limited_to(trained)
    assert (limited.context_tokens, limited.kv_cells) == (context, 3 * context)


def test_cells_that_were_asked_for_stay() -> None:
    assert EngineSettings(context_tokens=4096, kv_tokens=5000).limited_to(2048).kv_cells == 5000
