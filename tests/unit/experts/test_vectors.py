"""Embeddings and reranking, with a backend that has no weights."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from appliance.experts.settings import EngineSettings
from tests.unit.experts.conftest import Client, serving
from tests.unit.experts.fake_backend import FakeBackend


@pytest.fixture
def settings(settings: EngineSettings) -> EngineSettings:
    return settings.model_copy(update={"embeddings": True})


@pytest.fixture
async def client(fake: FakeBackend, settings: EngineSettings) -> AsyncIterator[Client]:
    fake.info = replace(fake.info, text_tokens=40, text_start=(1,), text_end=(2,))
    async with serving(lambda: fake, settings) as running:
        yield running


async def test_many_texts_give_vectors_in_their_order(client: Client) -> None:
    texts = ["lamp", "the lamp", "fan"]
    _, body = await client.post("/v1/embeddings", {"input": texts})
    alone = [(await client.post("/v1/embeddings", {"input": text}))[1]["data"][0]["embedding"] for text in texts]
    assert [item["embedding"] for item in body["data"]] == alone
    assert [item["index"] for item in body["data"]] == [0, 1, 2]
    assert body["usage"] == {"prompt_tokens": 21, "total_tokens": 21}
    _, body = await client.post("/v1/embeddings", {"input": [[108], [97, 98]]})
    assert body["usage"]["prompt_tokens"] == 3


async def test_streams_go_on_between_the_steps(client: Client, fake: FakeBackend) -> None:
    fake.script = lambda _prompt: "x" * 30
    fake.token_seconds = 0.002
    chat = asyncio.create_task(client.chat("x"))
    async with asyncio.timeout(5):
        while not client.scheduler.status().active:
            await asyncio.sleep(0.001)
    before = len(fake.steps)
    status, _ = await client.post("/v1/embeddings", {"input": ["a"] * 20})
    assert (status, fake.vector_steps) == (200, 20)
    assert len(fake.steps) - before >= 10
    assert (await chat)[0] == 200


async def test_a_text_that_is_too_long_is_refused_or_cut(client: Client) -> None:
    status, body = await client.post("/v1/embeddings", {"input": ["ok", "x" * 50]})
    assert (status, body["error"]["code"], body["error"]["param"]) == (400, "context_length_exceeded", "input")
    status, body = await client.post("/v1/embeddings", {"input": "x" * 50, "truncation": "auto"})
    assert (status, body["usage"]["prompt_tokens"]) == (200, 40)


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("embeddings", {"input": ["a"] * 65}, "input"),
        ("embeddings", {"input": "a", "dimensions": 4}, "dimensions"),
        ("embeddings", {"input": [-1]}, "input"),
        ("embeddings", {"input": [[]]}, "input"),
        ("rerank", {"query": "", "documents": ["a"]}, "query"),
        ("rerank", {"query": "a", "documents": []}, "documents"),
        ("rerank", {"query": "a", "documents": ["a"] * 129}, "documents"),
        ("rerank", {"query": "a", "documents": [{"title": "b"}]}, "documents.0.text"),
        ("rerank", {"query": "a", "documents": ["b"], "top_n": 0}, "top_n"),
        ("rerank", {"query": "a", "documents": ["x" * 50]}, "documents"),
    ],
)
async def test_bad_fields_are_named(client: Client, path: str, body: dict[str, Any], param: str) -> None:
    status, answer = await client.post(f"/v1/{path}", body)
    assert (status, answer["error"]["param"]) == (400, param)


async def test_embeddings_rank_where_the_model_has_no_head(client: Client) -> None:
    documents = ["quantum", {"text": "a lamp"}, "lamps"]
    status, body = await client.post("/v1/rerank", {"query": "a lamp", "documents": documents, "top_n": 2})
    assert (status, body["method"]) == (200, "cosine")
    first, second = body["results"]
    assert (first["index"], round(first["relevance_score"], 6)) == (1, 1.0)
    assert first["relevance_score"] > second["relevance_score"]
    assert "document" not in first


async def test_a_head_ranks_pairs(client: Client, fake: FakeBackend) -> None:
    fake.info = replace(fake.info, ranks=True, pair_marks=((1,), (2, 3), (4,)))
    body = {"query": "q", "documents": ["long document", "short"], "return_documents": True}
    _, answer = await client.post("/v1/rerank", body)
    assert answer["method"] == "rank"
    assert [result["index"] for result in answer["results"]] == [1, 0]
    assert answer["results"][0]["document"] == {"text": "short"}
    assert answer["usage"]["prompt_tokens"] == 2 * 5 + len("long documentshort")
    _, answer = await client.post("/v1/rerank", {"query": "q", "documents": ["x" * 99], "truncation": "auto"})
    assert answer["usage"]["prompt_tokens"] == 40
    status, answer = await client.post("/v1/rerank", {"query": "q" * 50, "documents": ["x"]})
    assert (status, answer["error"]["param"]) == (400, "query")
    fake.info = replace(fake.info, rank_prompt="Is {document} about {query}?")
    _, answer = await client.post("/v1/rerank", {"query": "q", "documents": ["x"]})
    assert answer["usage"]["prompt_tokens"] == len("Is x about q?")
    _, answer = await client.post("/v1/rerank", {"query": "<|im_end|>", "documents": ["<|end|>"]})
    assert answer["usage"]["prompt_tokens"] == len("Is <|end|> about <|im_end|>?")


async def test_a_model_that_only_encodes_writes_no_text(client: Client, fake: FakeBackend) -> None:
    fake.info = replace(fake.info, generates=False)
    for answer in (await client.chat("x"), await client.post("/v1/completions", {"prompt": "x"})):
        assert (answer[0], "only encodes" in answer[1]["error"]["message"]) == (400, True)
