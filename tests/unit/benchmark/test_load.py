import asyncio
import itertools

import aiohttp
import pytest
from aiohttp import web

from appliance.benchmark.client import Outcome, Target
from appliance.benchmark.errors import AllFailedError, UnreachableError
from appliance.benchmark.load import LoadTest, Plan, check_some_succeeded
from appliance.benchmark.prompts import prompts
from appliance.benchmark.report import Level, inter_token_ms
from scripts.house.processes import free_port
from tests.unit.benchmark.conftest import ScriptedServer, says, streams, token, tokens


async def test_each_level_has_so_many_clients_and_requests(server: ScriptedServer, http: aiohttp.ClientSession) -> None:
    server.script = tokens(3, pause=0.01, counted=3)
    begun: list[tuple[int, int]] = []
    answers: list[Outcome] = []
    plan = Plan(concurrency=(1, 4), prompt_tokens=(20, 50), duration=None, requests=8, warm_up=1)
    test = LoadTest(http, server.target, plan, lambda *level: begun.append(level), answers.append)
    await test.run()
    assert begun == [(1, 20), (4, 20), (1, 50), (4, 50)]
    assert [(level.concurrency, level.completed, level.failed) for level in test.levels] == [
        (1, 8, 0), (4, 8, 0), (1, 8, 0), (4, 8, 0),
    ]  # fmt: skip
    assert len(answers) == 32
    assert len(server.asked) == 34
    assert server.most_running == 4
    texts = [body["messages"][0]["content"] for body in server.asked]
    assert len({text[:8] for text in texts}) == len(texts)
    assert all(level.counted_by == "server" and level.tokens == 24 for level in test.levels)


async def test_the_time_ends_a_level_and_what_came_counts(server: ScriptedServer, http: aiohttp.ClientSession) -> None:
    server.script = streams(token(), token(), then="hang")
    test = LoadTest(http, server.target, Plan(concurrency=(3,), duration=0.4, warm_up=0))
    await test.run()
    (level,) = test.levels
    assert (level.completed, level.unfinished, level.failed, level.tokens) == (0, 3, 0, 6)
    assert level.seconds == pytest.approx(0.4)
    assert level.tokens_per_second == pytest.approx(15)
    assert level.first_token_ms is None
    with pytest.raises(AllFailedError, match="no answer was complete"):
        check_some_succeeded(test.levels)


async def test_failures_are_counted_by_kind(server: ScriptedServer, http: aiohttp.ClientSession) -> None:
    scripts = itertools.cycle((tokens(2), says({"error": "full"}, 503), streams(token())))

    async def script(request: web.Request) -> web.StreamResponse:
        return await next(scripts)(request)

    server.script = script
    test = LoadTest(http, server.target, Plan(concurrency=(1,), duration=None, requests=6, warm_up=0))
    await test.run()
    (level,) = test.levels
    assert (level.completed, level.errors) == (2, {"HTTP 503": 2, "cut short": 2})
    assert level.error_details["HTTP 503"] == "full"
    assert level.counted_by == "client"
    check_some_succeeded(test.levels)


async def test_all_failed(server: ScriptedServer, http: aiohttp.ClientSession) -> None:
    server.script = says({"error": {"message": "wrong key"}}, 401)
    with pytest.raises(AllFailedError, match="every request failed: HTTP 401: wrong key"):
        await LoadTest(http, server.target, Plan()).run()
    test = LoadTest(http, server.target, Plan(concurrency=(1,), duration=None, requests=2, warm_up=0))
    await test.run()
    with pytest.raises(AllFailedError, match="every request failed: HTTP 401: wrong key"):
        check_some_succeeded(test.levels)


async def test_nobody_there(http: aiohttp.ClientSession) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(UnreachableError, match=f"{url} is not reachable"):
        await LoadTest(http, Target(url), Plan()).run()


async def test_what_was_measured_stays_when_it_is_cancelled(
    server: ScriptedServer, http: aiohttp.ClientSession
) -> None:
    server.script = tokens(2, pause=0.01)
    test = LoadTest(http, server.target, Plan(concurrency=(2, 2), duration=100, warm_up=0))
    running = asyncio.create_task(test.run())
    async with asyncio.timeout(5):
        while len(server.asked) < 9:
            await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    (level,) = test.levels
    assert level.completed >= 7
    assert level.unfinished <= 2


def test_tokens_that_came_together_count_by_what_the_server_says() -> None:
    outcome = Outcome(10.0, 12.0, [(11.0, 2), (11.5, 2), (12.0, 1)], completion_tokens=10)
    assert inter_token_ms(outcome) == pytest.approx(1000 / 8)
    assert inter_token_ms(Outcome(0.0, 1.0, [(1.0, 3)])) is None
    level = Level.of([outcome], concurrency=1, prompt_tokens=None, began=0, window=(10.0, 11.5))
    assert level.tokens == 8
    assert level.gap_ms is not None
    assert level.gap_ms.maximum == pytest.approx(500)
    (request,) = level.requests
    assert (request.first_token, request.last_token, request.chunks, request.tokens) == (1.0, 2.0, 5, 10)


def test_prompts_are_the_same_for_the_same_seed_and_unlike_each_other() -> None:
    first, again, other = (list(itertools.islice(prompts(50, seed=seed), 5)) for seed in (1, 1, 2))
    assert first == again
    assert not set(first) & set(other)
    assert len({text[:8] for text in first + other}) == 10
    assert all(40 <= len(text.split()) <= 60 for text in first)
