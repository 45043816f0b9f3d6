"""Embeddings and ranks by llama.cpp: a real decoder, and tiny encoders with random weights."""

import asyncio
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest

from appliance.experts.backend import Steps
from appliance.experts.llama.backend import LlamaBackend
from appliance.experts.settings import EngineSettings
from tests.unit.experts.conftest import serving
from tests.unit.experts.tiny_encoders import write_bert

SETTINGS = EngineSettings(
    context_tokens=512, slots=4, threads=2, embeddings=True, drain_seconds=1, batch_tokens=32, prefill_chunk=16
)
TEXTS = ["a lamp", "the lamp on a table, " * 20, "quantum physics", *(f"number {count}" for count in range(20))]


def run(steps: Steps) -> tuple[list[list[float]], int]:
    count = 0
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value, count
        count += 1


def pooled_by_llama_cpp(backend: LlamaBackend, tokens: list[int]) -> Any:
    parameters = llama_cpp.llama_context_default_params()
    parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = 512
    parameters.embeddings, parameters.pooling_type = True, llama_cpp.LLAMA_POOLING_TYPE_MEAN
    context = llama_cpp.llama_init_from_model(backend._model, parameters)
    array = (llama_cpp.llama_token * len(tokens))(*tokens)
    assert llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(array, len(tokens))) == 0
    width = llama_cpp.llama_model_n_embd_out(backend._model)
    vector = np.ctypeslib.as_array(llama_cpp.llama_get_embeddings_seq(context, 0), (width,)).astype(float)
    llama_cpp.llama_free(context)
    return vector / np.linalg.norm(vector)


@pytest.mark.model
async def test_chunks_of_several_texts_give_llama_cpps_own_vectors(model: Path) -> None:
    backend = LlamaBackend(model, SETTINGS)
    inputs = [backend.tokenize(text, special=False) for text in TEXTS]
    vectors, steps = run(backend.embed(inputs))
    assert steps == -(-sum(map(len, inputs)) // 32)
    for tokens, vector in zip(inputs, vectors, strict=True):
        assert float(np.dot(pooled_by_llama_cpp(backend, tokens), vector)) > 0.998
    again, _ = run(backend.embed(inputs[::-1]))
    assert all(np.dot(one, other) > 0.998 for one, other in zip(vectors, again[::-1], strict=True))
    abandoned = backend.embed(inputs)
    next(abandoned)
    abandoned.close()
    assert np.dot(run(backend.embed(inputs[:1]))[0][0], vectors[0]) > 0.998
    backend.close()


@pytest.mark.model
async def test_embeddings_and_chats_at_the_same_time(model: Path) -> None:
    async with serving(lambda: LlamaBackend(model, SETTINGS), SETTINGS) as client:
        answers = await asyncio.gather(
            client.post("/v1/embeddings", {"input": TEXTS}),
            client.chat("Count to ten.", max_tokens=16),
            client.post("/v1/rerank", {"query": "a lamp", "documents": ["physics", "the lamp"]}),
        )
        assert [status for status, _ in answers] == [200, 200, 200]
        assert answers[2][1]["results"][0]["index"] == 1
        assert answers[2][1]["method"] == "cosine"


async def test_an_encoder_embeds_and_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "bert.gguf"
    write_bert(path, ranks=False)
    async with serving(lambda: LlamaBackend(path, SETTINGS), SETTINGS) as client:
        texts = ["lamp", "a lamp", "fan off " * 30, *["red light"] * 20]
        status, body = await client.post("/v1/embeddings", {"input": texts, "truncation": "auto"})
        assert status == 200, body
        vectors = [item["embedding"] for item in body["data"]]
        assert all(len(vector) == 32 and abs(np.linalg.norm(vector) - 1) < 1e-3 for vector in vectors)
        for text, vector in zip(texts, vectors, strict=True):
            _, alone = await client.post("/v1/embeddings", {"input": text, "truncation": "auto"})
            assert np.allclose(alone["data"][0]["embedding"], vector, atol=1e-3)
        _, body = await client.post("/v1/embeddings", {"input": "lamp"})
        assert body["usage"]["prompt_tokens"] == 3
        status, body = await client.chat("lamp")
        assert (status, "only encodes" in body["error"]["message"]) == (400, True)


async def test_a_classification_head_ranks(tmp_path: Path) -> None:
    path = tmp_path / "ranker.gguf"
    write_bert(path, ranks=True)
    async with serving(lambda: LlamaBackend(path, SETTINGS), SETTINGS) as client:
        documents = ["the lamp", "fan off", "red light on"] * 8
        status, body = await client.post("/v1/rerank", {"query": "lamp", "documents": documents})
        assert status == 200, body
        assert body["method"] == "rank"
        scores = {result["index"]: result["relevance_score"] for result in body["results"]}
        assert all(0 <= score <= 1 for score in scores.values())
        assert list(scores.values()) == sorted(scores.values(), reverse=True)
        assert len({round(scores[index], 3) for index in range(3)}) == 3
        for index in range(len(documents)):
            assert scores[index] == pytest.approx(scores[index % 3], abs=1e-3)
        _, other = await client.post("/v1/rerank", {"query": "red", "documents": documents[:1]})
        assert other["results"][0]["relevance_score"] != pytest.approx(scores[0], abs=1e-6)
        assert other["usage"]["prompt_tokens"] == 1 + 1 + 1 + 2
