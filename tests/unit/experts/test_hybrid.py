"""A model whose state can't be cut, as LiquidAI's are: short convolutions beside attention."""

import asyncio
from pathlib import Path

import pytest

from appliance.experts.llama.backend import LlamaBackend
from appliance.experts.settings import EngineSettings
from tests.unit.experts.conftest import Client, serving
from tests.unit.experts.tiny_models import write_lfm2

pytestmark = pytest.mark.model

SETTINGS = EngineSettings(context_tokens=1024, slots=3, threads=2, drain_seconds=1)
SYSTEM = " ".join(f"The lamp in room {number} is {'on' if number % 3 else 'off'}." for number in range(30))
QUESTIONS = ("Is it dark?", "Which lamps are on?", "Where are you?", "What time is it?")


@pytest.fixture(scope="module")
def hybrid(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lfm2(tmp_path_factory.mktemp("models") / "lfm2.gguf", model)


async def ask(client: Client, question: str) -> tuple[str, int]:
    """Return the answer and how many tokens of its prompt were known."""
    body = {"prompt": f"{SYSTEM} {question}", "temperature": 0, "max_tokens": 12}
    status, answer = await client.post("/v1/completions", body)
    assert status == 200, answer
    return answer["choices"][0]["text"], answer["timings"]["cache_n"]


async def test_what_prompts_share_is_computed_twice_and_then_never_again(hybrid: Path, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"prefix_folder": tmp_path})
    alone = []
    for question in QUESTIONS:
        async with serving(lambda: LlamaBackend(hybrid, SETTINGS), SETTINGS) as client:
            alone.append(await ask(client, question))
    assert [known for _, known in alone] == [0] * len(QUESTIONS)
    async with serving(lambda: LlamaBackend(hybrid, settings), settings) as client:
        assert not client.scheduler.backend.divisible
        answers = [await ask(client, question) for question in QUESTIONS]
        await asyncio.gather(*(ask(client, question) for question in QUESTIONS))
    assert [known for _, known in answers[:2]] == [0, 0]
    assert all(known > 200 for _, known in answers[2:])
    assert [text for text, _ in answers] == [text for text, _ in alone]

    async with serving(lambda: LlamaBackend(hybrid, settings), settings) as client:
        again = await ask(client, QUESTIONS[0])
    assert again[1] > 200
    assert again[0] == alone[0][0]
