"""Real servers of OpenAI's API on loopback: the scripted specialists, and ones that fail."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from appliance.routing import completion as completion_module
from appliance.routing.completion import Source
from appliance.routing.dataset import Query, line_of, read
from appliance.routing.errors import DataSetError
from appliance.routing.generate import Limits, generate
from tests.benchmarks.specialists import application, completion

SUM = Query(task_name="maths", query="What is 12 + 30?", ground_truth="42", metric="number", task_id="maths/plus/en0#0")
MAIL = Query(
    task_name="extraction", query="Extract: x@y.example", ground_truth='{"email": "x@y.example"}', metric="json"
)
STORY = Query(task_name="chat", query="Tell me a story", ground_truth="A story.", metric="judge")
LIMITS = Limits(max_tokens=16, concurrency=2, timeout=5, failures=2)


@asynccontextmanager
async def server(name: str, app: web.Application) -> AsyncIterator[Source]:
    async with TestServer(app) as running:
        yield Source(name, f"{running.make_url('/v1')}", name, "key")


def answering(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> web.Application:
    app = web.Application()
    app.router.add_post("/v1/chat/completions", handler)
    return app


async def test_every_expert_answers_every_query_once(tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    async with server("sums", application("sums")) as sums, server("extractor", application("extractor")) as extractor:
        first = await generate(queries=[SUM], experts=[sums, extractor], file=file, limits=LIMITS)
        assert (first.asked, first.there, first.failed) == (2, 0, {})
        again = await generate(queries=[SUM, MAIL, STORY], experts=[sums, extractor], file=file, limits=LIMITS)
        assert (again.asked, again.there, again.unjudged) == (2, 2, 1)
    found = {(answer.query, answer.model_name): answer for answer in read(file)}
    assert {key: answer.performance for key, answer in found.items()} == {
        (SUM.query, "sums"): 1.0,
        (SUM.query, "extractor"): 0.0,
        (MAIL.query, "sums"): 0.0,
        (MAIL.query, "extractor"): 1.0,
    }
    answer = found[SUM.query, "sums"]
    assert (answer.response, answer.input_tokens, answer.output_tokens, answer.token_num) == ("42", 5, 1, 6)
    assert answer.response_time > 0
    assert {found[MAIL.query, name].embedding_id for name in ("sums", "extractor")} == {1}


async def test_a_cut_off_line_is_asked_again(tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    async with server("sums", application("sums")) as sums:
        await generate(queries=[SUM], experts=[sums], file=file, limits=LIMITS)
        line = line_of(read(file)[0].model_copy(update={"query": "What is 1 + 1?"}))
        file.write_text(file.read_text() + line[:50])
        summary = await generate(
            queries=[SUM, SUM.model_copy(update={"query": "What is 1 + 1?"})], experts=[sums], file=file, limits=LIMITS
        )
    assert (summary.asked, summary.there) == (1, 1)
    assert len(read(file)) == 2


async def test_an_expert_that_fails_is_given_up_and_the_others_go_on(tmp_path: Path) -> None:
    asked = 0

    async def refuse(_: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.json_response({"error": {"message": "the model is broken"}}, status=500)

    async def babble(_: web.Request) -> web.Response:
        return web.json_response({"choices": []})

    queries = [SUM.model_copy(update={"query": f"What is {number} + 1?"}) for number in range(9)]
    gone = Source("gone", "http://127.0.0.1:9/v1", "gone")
    async with (
        server("sums", application("sums")) as sums,
        server("bad", answering(refuse)) as bad,
        server("odd", answering(babble)) as odd,
    ):
        summary = await generate(
            queries=queries, experts=[bad, odd, gone, sums], file=tmp_path / "data.jsonl", limits=LIMITS
        )
    assert summary.asked == 9
    assert asked <= LIMITS.failures + LIMITS.concurrency
    assert "the model is broken" in summary.failed["bad"]
    assert "sent no chat completion" in summary.failed["odd"]
    assert "can't be asked" in summary.failed["gone"]


REPLIES = {
    "half a character": json.dumps({"choices": [{"message": {"content": "x \ud83d"}}]}),
    "usage without an end": '{"choices": [{"message": {"content": "1"}}], "usage": {"prompt_tokens": Infinity}}',
    "a huge usage": '{"choices": [{"message": {"content": "1"}}], "usage": {"prompt_tokens": 1e999}}',
    "a negative usage": json.dumps(completion("x", "1", "x") | {"usage": {"prompt_tokens": -5}}),
    "a list": json.dumps({"choices": [{"message": {"content": [1]}}]}),
    "too long for a line": json.dumps(completion("x", "y" * 2_000_000, "x")),
}


WHY = {
    "half a character": "surrogates not allowed",
    "usage without an end": "no number of tokens",
    "a huge usage": "no number of tokens",
    "a negative usage": "no number of tokens",
    "a list": "the content is no text",
    "too long for a line": "too long for a line of the data set",
}


@pytest.mark.parametrize("label", REPLIES)
async def test_a_hostile_reply_is_a_failure_of_its_expert_alone(tmp_path: Path, label: str) -> None:
    async def hostile(_: web.Request) -> web.Response:
        return web.Response(text=REPLIES[label], content_type="application/json")

    file = tmp_path / "data.jsonl"
    async with server("bad", answering(hostile)) as bad, server("sums", application("sums")) as sums:
        summary = await generate(queries=[SUM], experts=[bad, sums], file=file, limits=LIMITS)
    assert (summary.asked, summary.failed) == (1, {})
    ((reason, count),) = summary.skipped["bad"].items()
    assert count == 1
    assert reason.isascii()
    assert WHY[label] in reason
    assert [answer.model_name for answer in read(file)] == ["sums"]


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": None, "completion_tokens": None}])
async def test_a_usage_that_is_not_told_counts_as_none(tmp_path: Path, usage: object) -> None:
    async def untold(_: web.Request) -> web.Response:
        return web.json_response(completion("x", "42", "x") | {"usage": usage})

    async with server("untold", answering(untold)) as source:
        summary = await generate(queries=[SUM], experts=[source], file=tmp_path / "data.jsonl", limits=LIMITS)
    assert (summary.asked, summary.skipped) == (1, {})
    assert read(tmp_path / "data.jsonl")[0].token_num == 0


async def test_what_is_missing_is_told_with_its_reasons(tmp_path: Path) -> None:
    asked = 0

    async def moody(_: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        if asked in {2, 4}:
            return web.json_response({"error": "tired"}, status=503)
        return web.json_response(completion("moody", "1", "x"))

    async def refuse(_: web.Request) -> web.Response:
        return web.Response(status=500, text="\x1b[31mno")

    queries = [SUM.model_copy(update={"query": f"What is {number} + 1?"}) for number in range(7)]
    limits = Limits(concurrency=1, failures=3)
    async with server("moody", answering(moody)) as first, server("bad", answering(refuse)) as second:
        summary = await generate(queries=queries, experts=[first, second], file=tmp_path / "d.jsonl", limits=limits)
    assert list(summary.failed) == ["bad"]
    ((reason, count),) = summary.skipped["moody"].items()
    assert ("503" in reason, count) == (True, 2)
    reasons = {("500" in reason, "\x1b" in reason): count for reason, count in summary.skipped["bad"].items()}
    assert reasons == {(True, False): 3, (False, False): 4}
    assert "not asked any more" in summary.skipped["bad"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metric": "regex", "ground_truth": "("}, "no regular expression"),
        ({"metric": "f1"}, "no metric 'f1'"),
        ({"ground_truth": "12,5"}, "'12,5' is no number"),
        ({"ground_truth": "nan"}, "'nan' is no number"),
        ({"metric": "json", "ground_truth": "[1]"}, "no JSON object"),
        ({"metric": "json", "ground_truth": "[" * 100_000}, "no JSON"),
        ({"query": "x \ud83d"}, "half a character"),
    ],
)
async def test_a_query_that_can_not_be_scored_is_refused_before_anyone_is_asked(
    tmp_path: Path, change: dict[str, str], message: str
) -> None:
    gone = Source("gone", "http://127.0.0.1:9/v1", "gone")
    queries = [SUM, SUM.model_copy(update=change)]
    with pytest.raises(DataSetError, match=message):
        await generate(queries=queries, experts=[gone], file=tmp_path / "data.jsonl", limits=LIMITS)
    assert not (tmp_path / "data.jsonl").exists()


async def test_a_data_set_that_can_not_be_written_is_one_error(tmp_path: Path) -> None:
    queries = [SUM.model_copy(update={"query": f"What is {number} + 1?"}) for number in range(6)]
    async with server("sums", application("sums")) as sums, server("house", application("house")) as house:
        (tmp_path / "file").write_text("")
        with pytest.raises(DataSetError, match="can't be written"):
            await generate(queries=queries, experts=[sums, house], file=tmp_path / "file/data.jsonl", limits=LIMITS)


async def test_a_judge_scores_what_can_not_be_checked(tmp_path: Path) -> None:
    bodies = []

    async def judge(request: web.Request) -> web.Response:
        bodies.append(await request.json())
        return web.json_response(completion("judge", "4", "x"))

    async with server("sums", application("sums")) as sums, server("judge", answering(judge)) as judging:
        summary = await generate(
            queries=[STORY, SUM], experts=[sums], file=tmp_path / "data.jsonl", limits=LIMITS, judge=judging
        )
    assert summary.asked == 2
    assert {answer.query: answer.performance for answer in read(tmp_path / "data.jsonl")} == {
        STORY.query: 0.75,
        SUM.query: 1.0,
    }
    assert len(bodies) == 1
    assert bodies[0]["grammar"].startswith("root ::=")


async def test_an_answer_in_pieces_is_read_to_its_end(tmp_path: Path) -> None:
    body = json.dumps(completion("slow", "42", "x")).encode()

    async def slow(request: web.Request) -> web.StreamResponse:
        reply = web.StreamResponse(headers={"Content-Type": "application/json"})
        await reply.prepare(request)
        for piece in (body[:20], body[20:30], body[30:]):
            await reply.write(piece)
            await asyncio.sleep(0.02)
        return reply

    async with server("slow", answering(slow)) as source:
        summary = await generate(queries=[SUM], experts=[source], file=tmp_path / "data.jsonl", limits=LIMITS)
    assert (summary.asked, summary.failed) == (1, {})
    assert read(tmp_path / "data.jsonl")[0].performance == 1.0


async def test_an_answer_without_an_end_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(completion_module, "LARGEST_REPLY", 100_000)
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        reply = web.StreamResponse()
        await reply.prepare(request)
        with contextlib.suppress(ConnectionError):
            for _ in range(2000):
                await reply.write(b"x" * 65536)
                sent += 65536
        return reply

    async with server("endless", answering(endless)) as source:
        summary = await generate(
            queries=[SUM], experts=[source], file=tmp_path / "data.jsonl", limits=Limits(failures=1)
        )
    assert "sent more than 100000 bytes" in summary.failed["endless"]
    assert sent < 2000 * 65536
