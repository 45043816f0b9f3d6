import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from appliance.experts.engine.scheduler import Scheduler
from appliance.experts.errors import (
    BusyError,
    ContextExceededError,
    EngineBrokenError,
    InvalidRequestError,
    LoadingError,
    ModelLoadError,
    StepError,
)
from appliance.experts.events import Event, TextDelta
from appliance.experts.generation import GenerationRequest
from appliance.experts.metrics import ExpertMetrics
from appliance.experts.settings import EngineSettings
from tests.unit.experts.fake_backend import FakeBackend


@asynccontextmanager
async def running(backend: FakeBackend) -> AsyncIterator[Scheduler]:
    scheduler = Scheduler(lambda: backend, backend.settings, ExpertMetrics("test"))
    await scheduler.start()
    try:
        yield scheduler
    finally:
        await scheduler.stop()
        assert backend.closed
        assert all(sampler.closed for sampler in backend.samplers)


def request(text: str, max_tokens: int = 400, **fields: object) -> GenerationRequest:
    return GenerationRequest(prompt=list(text.encode()), max_tokens=max_tokens, **fields)  # type: ignore[arg-type]


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.002)


async def test_requests_join_and_leave_and_all_get_their_own_answer(fake: FakeBackend) -> None:
    async with running(fake) as scheduler:
        generations = [scheduler.submit(request(f"{number} " * (number + 1))) for number in range(8)]
        for number, generation in enumerate(generations):
            events, finished = await generation.finished()
            assert text_of(events) == f"{number} " * (number + 1)
            assert finished.reason == "stop"
            assert finished.timings.predicted_n == 2 * (number + 1)
    assert max(len(step) for step in fake.steps) == 4


async def test_max_tokens_and_the_context_bound_the_answer(fake: FakeBackend) -> None:
    fake.script = lambda _prompt: "x" * 10_000
    async with running(fake) as scheduler:
        _, finished = await scheduler.submit(request("abc", max_tokens=5)).finished()
        assert (finished.reason, finished.timings.predicted_n) == ("length", 5)
        _, finished = await scheduler.submit(request("a" * 500, max_tokens=10_000)).finished()
        assert finished.timings.predicted_n == 12
        with pytest.raises(ContextExceededError, match=r"512.*513"):
            scheduler.submit(request("a" * 513))


async def test_cancelling_frees_slot_and_cells_within_a_step(fake: FakeBackend) -> None:
    fake.script = lambda _prompt: "x" * 400
    fake.token_seconds = 0.002
    async with running(fake) as scheduler:
        generation = scheduler.submit(request("abc"))
        async for _events in generation:
            break
        steps = len(fake.steps)
        generation.cancel()
        await until(lambda: scheduler.status().active == 0)
        assert len(fake.steps) <= steps + 3
        assert fake.used == 0
        assert text_of((await scheduler.submit(request("again", 3)).finished())[0]) == "xxx"


async def test_a_cancelled_request_leaves_the_queue(fake: FakeBackend) -> None:
    fake.script = lambda prompt: prompt * 40
    fake.token_seconds = 0.001
    async with running(fake) as scheduler:
        generations = [scheduler.submit(request(f"r{number}")) for number in range(6)]
        generations[5].cancel()
        for generation in generations[:5]:
            await generation.finished()
        await until(lambda: scheduler.status().queued == 0)
    assert len(fake.samplers) == 5


async def test_a_full_queue_refuses_and_says_when_to_come_back(fake: FakeBackend) -> None:
    fake.script = lambda _prompt: "x" * 100
    fake.token_seconds = 0.001
    async with running(fake) as scheduler:
        accepted = [scheduler.submit(request(f"r{number}")) for number in range(8)]
        await until(lambda: scheduler.status().active == 4)
        with pytest.raises(BusyError) as refused:
            scheduler.submit(request("one too many"))
        assert refused.value.retry_after >= 1
        for generation in accepted:
            generation.cancel()


async def test_a_long_prompt_never_stalls_a_stream(fake: FakeBackend) -> None:
    fake.script = lambda prompt: "x" * (300 if prompt == "short" else 1)
    fake.token_seconds = 0.0005
    async with running(fake) as scheduler:
        short = scheduler.submit(request("short"))
        await until(lambda: len(fake.steps) > 2)
        long = scheduler.submit(request("l" * 400))
        await long.finished()
        short.cancel()
    chunks = [runs for runs in fake.steps if len(runs) == 2]
    assert chunks
    for runs in chunks:
        assert [len(run.tokens) for run in runs if run.outputs] != []
        assert sum(len(run.tokens) for run in runs) <= 1 + fake.settings.prefill_chunk


async def test_an_answer_that_repeats_the_prompt_takes_fewer_steps(fake: FakeBackend) -> None:
    poem = "the cat sat on the mat and the dog sat on the log "
    fake.step_seconds = 0.002
    for answer in (poem * 3, "none of that was in what you said; 12345"):
        fake.script = lambda _prompt, answer=answer: answer  # type: ignore[misc]
        fake.steps.clear()
        async with running(FakeBackend(fake.settings, script=fake.script, step_seconds=0.002, steps=fake.steps)) as it:
            events, finished = await it.submit(request(poem)).finished()
        assert text_of(events) == answer
        assert finished.timings.predicted_n == len(answer)
        drafted = max(run.outputs for runs in fake.steps for run in runs)
        assert drafted > 1 if answer.startswith(poem) else drafted >= 1
        if answer.startswith(poem):
            assert len(fake.steps) < 0.5 * len(answer)


async def test_prompts_share_the_budget(fake: FakeBackend) -> None:
    fake.token_seconds = 0.0005
    async with running(fake) as scheduler:
        long = scheduler.submit(request("l" * 450, 1))
        short = scheduler.submit(request("s" * 20, 1))
        await short.finished()
        assert scheduler.status().active == 1
        await long.finished()


async def test_a_known_prefix_is_not_computed_again(fake: FakeBackend) -> None:
    async with running(fake) as scheduler:
        for turn, cached in (("system; one", 0), ("system; two", 8), ("system; two", 10)):
            _, finished = await scheduler.submit(request(turn, 3)).finished()
            assert finished.timings.cache_n == cached
            assert finished.timings.cache_n + finished.timings.prompt_n == 11


async def test_a_model_that_cannot_be_cut_computes_again(fake: FakeBackend) -> None:
    fake.divisible = False
    async with running(fake) as scheduler:
        for turn in ("system; one", "system; two"):
            events, finished = await scheduler.submit(request(turn)).finished()
            assert (text_of(events), finished.timings.cache_n) == (turn, 0)


async def test_cells_of_idle_slots_make_room(settings: EngineSettings) -> None:
    fake = FakeBackend(settings.model_copy(update={"kv_tokens": 512}))
    async with running(fake) as scheduler:
        for number in range(8):
            text = f"{number}" * 150
            events, _ = await scheduler.submit(request(text, 160)).finished()
            assert text_of(events) == text
        several = [scheduler.submit(request(f"{number}" * 150, 160)) for number in range(4)]
        for generation in several:
            await generation.finished()


async def test_a_failed_step_fails_its_requests_and_the_engine_goes_on(fake: FakeBackend) -> None:
    fake.fail_when = lambda runs: any(ord("!") in run.tokens for run in runs)
    async with running(fake) as scheduler:
        with pytest.raises(StepError):
            await scheduler.submit(request("bad!")).finished()
        events, _ = await scheduler.submit(request("good")).finished()
        assert text_of(events) == "good"


async def test_an_engine_that_keeps_failing_ends_with_one_error(fake: FakeBackend) -> None:
    fake.fail_when = lambda _runs: True
    async with running(fake) as scheduler:
        for _attempt in range(3):
            with pytest.raises((StepError, EngineBrokenError)):
                await scheduler.submit(request("x")).finished()
        with pytest.raises(EngineBrokenError, match="in a row"):
            await scheduler.wait_ended()
        with pytest.raises(EngineBrokenError):
            scheduler.submit(request("x"))


async def test_an_error_at_one_request_fails_it_alone(fake: FakeBackend) -> None:
    def script(prompt: str) -> str:
        if prompt == "bad":
            raise ZeroDivisionError
        return prompt

    fake.script = script
    async with running(fake) as scheduler:
        good, bad = scheduler.submit(request("good")), scheduler.submit(request("bad"))
        with pytest.raises(StepError, match="ZeroDivisionError"):
            await bad.finished()
        assert text_of((await good.finished())[0]) == "good"


async def test_an_engine_that_breaks_fails_running_and_waiting_requests(fake: FakeBackend) -> None:
    def break_down(_runs: object) -> bool:
        raise EngineBrokenError("gone")

    fake.fail_when = break_down
    async with running(fake) as scheduler:
        for generation in [scheduler.submit(request(f"r{number}")) for number in range(6)]:
            with pytest.raises(EngineBrokenError, match="gone"):
                await generation.finished()
        with pytest.raises(EngineBrokenError, match="gone"):
            await scheduler.wait_ended()


async def test_stopping_drains_then_fails_what_is_left(fake: FakeBackend) -> None:
    fake.settings = fake.settings.model_copy(update={"drain_seconds": 0.2})
    fake.script = lambda prompt: "x" * (400 if prompt == "long" else 5)
    fake.token_seconds = 0.005
    async with running(fake) as scheduler:
        short, long = scheduler.submit(request("short")), scheduler.submit(request("long"))
        await until(lambda: scheduler.status().active == 2)
        started = time.monotonic()
        await scheduler.stop()
        assert time.monotonic() - started < 2
        await short.finished()
        with pytest.raises(BusyError):
            await long.finished()
        with pytest.raises(BusyError):
            scheduler.submit(request("late"))


async def test_a_model_that_does_not_load(settings: EngineSettings) -> None:
    def fail() -> FakeBackend:
        raise ModelLoadError("no such model")

    scheduler = Scheduler(fail, settings, ExpertMetrics("test"))
    with pytest.raises(LoadingError):
        scheduler.submit(request("x"))
    with pytest.raises(ModelLoadError, match="no such model"):
        await scheduler.start()
    await scheduler.stop()


async def test_jobs_run_between_steps_and_keep_their_errors(fake: FakeBackend) -> None:
    def refuse(_backend: object) -> None:
        raise InvalidRequestError("no")

    async with running(fake) as scheduler:
        assert await scheduler.call(lambda backend: backend.tokenize("a", special=True)) == [97]
        with pytest.raises(InvalidRequestError):
            await scheduler.call(refuse)
