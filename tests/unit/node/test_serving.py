"""What an expert's settings become."""

from pathlib import Path

import pytest

from appliance.node.serving import engine_settings
from appliance.settings.model import ExpertSettings, Settings

LEAST = {"context": 256, "slots": 1, "threads": 0, "batch": 32, "queue": 0, "gpu_layers": -1}
MOST = {"context": 1_048_576, "slots": 128, "threads": 1024, "batch": 8192, "queue": 10_000, "gpu_layers": 99}


@pytest.mark.parametrize("values", [LEAST, MOST, {}])
def test_whatever_the_settings_allow_the_engine_takes(values: dict[str, int]) -> None:
    expert = ExpertSettings.model_validate({"model": Path("m.gguf"), **values})
    engine = engine_settings("small", Settings(experts={"small": expert}))
    assert (engine.context_tokens, engine.slots, engine.batch_tokens, engine.queue_limit, engine.gpu_layers) == (
        expert.context,
        expert.slots,
        expert.batch,
        expert.queue,
        expert.gpu_layers,
    )
    assert engine.threads == (expert.threads or None)
