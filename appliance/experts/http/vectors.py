"""The endpoints that turn texts into numbers: embeddings and reranking."""

import asyncio
import base64
import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aiohttp import web

from appliance.experts.backend import Backend, Steps
from appliance.experts.engine.scheduler import Scheduler
from appliance.experts.errors import BusyError, ContextExceededError, InvalidRequestError, UnsupportedError
from appliance.experts.http.generating import aside, check_model, tokens_of
from appliance.experts.http.requests import EmbeddingRequest, RerankRequest, parse
from appliance.experts.http.wire import Json
from appliance.experts.settings import EngineSettings
from appliance.http_server import read_body

MOST_INPUTS = 64
"""Texts in one embedding request."""
MOST_DOCUMENTS = 128
"""Documents in one reranking request."""


@dataclass(frozen=True, slots=True)
class _Step:
    """What came of one step: the vectors, after the last one."""

    vectors: list[list[float]] | None


class Vectors:
    """Handlers of the endpoints that turn texts into numbers."""

    def __init__(self, *, name: str, scheduler: Scheduler, settings: EngineSettings) -> None:
        self._name = name
        self._scheduler = scheduler
        self._settings = settings
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def embed(self, request: web.Request) -> web.Response:
        """POST /v1/embeddings."""
        body = await read_body(request)
        self._check_enabled()

        def prepare() -> tuple[EmbeddingRequest, list[list[int]]]:
            parsed = parse(EmbeddingRequest, body)
            check_model(parsed.model, self._name)
            if parsed.dimensions is not None:
                raise UnsupportedError("The number of dimensions can't be chosen.", param="dimensions")
            if len(parsed.input) > MOST_INPUTS:
                raise InvalidRequestError(f"input: at most {MOST_INPUTS} texts a request.", param="input")
            return parsed, [self._text(text, "input", parsed.truncation) for text in parsed.input]

        parsed, inputs = await aside(prepare, body)
        vectors = await self._computed(lambda backend: backend.embed(inputs))
        data = [
            {"object": "embedding", "index": index, "embedding": _encoded(vector, parsed)}
            for index, vector in enumerate(vectors)
        ]
        return web.json_response({"object": "list", "data": data, "model": self._name, "usage": _usage(inputs)})

    async def rerank(self, request: web.Request) -> web.Response:
        """POST /v1/rerank."""
        body = await read_body(request)
        self._check_enabled()
        ranks = self._scheduler.info.ranks

        def prepare() -> tuple[RerankRequest, list[list[int]]]:
            parsed = parse(RerankRequest, body)
            check_model(parsed.model, self._name)
            if len(parsed.documents) > MOST_DOCUMENTS:
                raise InvalidRequestError(f"documents: at most {MOST_DOCUMENTS} a request.", param="documents")
            texts = [document.text for document in parsed.documents]
            if ranks:
                return parsed, [self._pair(parsed.query, text, parsed.truncation) for text in texts]
            return parsed, [
                self._text(parsed.query, "query", parsed.truncation),
                *(self._text(text, "documents", parsed.truncation) for text in texts),
            ]

        parsed, inputs = await aside(prepare, body)
        if ranks:
            scores = [vector[0] for vector in await self._computed(lambda backend: backend.rank(inputs))]
        else:
            query, *documents = await self._computed(lambda backend: backend.embed(inputs))
            scores = [math.sumprod(query, vector) for vector in documents]
        order = sorted(range(len(scores)), key=lambda index: -scores[index])[: parsed.top_n]
        results: list[Json] = [{"index": index, "relevance_score": scores[index]} for index in order]
        if parsed.return_documents:
            for result in results:
                result["document"] = {"text": parsed.documents[result["index"]].text}
        return web.json_response(
            {
                "object": "list",
                "model": self._name,
                "method": "rank" if ranks else "cosine",
                "results": results,
                "usage": _usage(inputs),
            }
        )

    async def _computed(self, begin: Callable[[Backend], Steps]) -> list[list[float]]:
        """Compute step by step, so that streams go on in between; one request at a time."""
        if self._waiting > self._settings.queue_limit:
            raise BusyError("Too many requests for vectors wait already.", retry_after=5)
        self._waiting += 1
        try:
            async with self._turn:
                steps = await self._scheduler.call(begin)
                while (done := await self._scheduler.call(lambda _: _advance(steps))).vectors is None:
                    pass
                return done.vectors
        finally:
            self._waiting -= 1

    def _check_enabled(self) -> None:
        if not self._settings.embeddings:
            raise UnsupportedError("This expert serves no embeddings and ranks: its setting `embeddings` is off.")

    def _text(self, text: str | list[int], param: str, truncation: str | None) -> list[int]:
        """Return a text's tokens with what the model wants around them."""
        info = self._scheduler.info
        tokens = tokens_of(self._scheduler, text, param)
        if isinstance(text, str):
            room = info.text_tokens - len(info.text_start) - len(info.text_end)
            self._check_length(len(tokens), room, param, truncation)
            tokens = [*info.text_start, *tokens[:room], *info.text_end]
        else:
            self._check_length(len(tokens), info.text_tokens, param, truncation)
            tokens = tokens[: info.text_tokens]
        if not tokens:
            raise InvalidRequestError(f"{param}: there is an empty text.", param=param)
        return tokens

    def _pair(self, query: str, text: str, truncation: str | None) -> list[int]:
        """Return the tokens of a query with a document, as llama-server puts them together."""
        info, backend = self._scheduler.info, self._scheduler.backend
        if info.rank_prompt is not None:
            before, _, after = info.rank_prompt.partition("{document}")
            before_tokens, after_tokens = (self._asking(part, query) for part in (before, after))
        else:
            start, middle, end = info.pair_marks
            before_tokens = [*start, *backend.tokenize(query, special=False), *middle]
            after_tokens = list(end)
        document = backend.tokenize(text, special=False)
        room = info.text_tokens - len(before_tokens) - len(after_tokens)
        if room < 1:
            raise ContextExceededError(prompt_tokens=len(before_tokens), limit=info.text_tokens, param="query")
        self._check_length(len(document), room, "documents", truncation)
        return [*before_tokens, *document[:room], *after_tokens]

    def _asking(self, part: str, query: str) -> list[int]:
        """Return the tokens of a part of the model's way of asking; control tokens in a query stay text."""
        tokenize = self._scheduler.backend.tokenize
        first, *others = part.split("{query}")
        tokens = tokenize(first, special=True)
        for other in others:
            tokens += [*tokenize(query, special=False), *tokenize(other, special=True)]
        return tokens

    def _check_length(self, tokens: int, room: int, param: str, truncation: str | None) -> None:
        if tokens > room and (truncation or self._settings.truncation) != "auto":
            raise ContextExceededError(prompt_tokens=tokens, limit=room + 1, param=param)


def _advance(steps: Steps) -> _Step:
    try:
        next(steps)
    except StopIteration as end:
        return _Step(end.value)
    return _Step(None)


def _usage(inputs: Sequence[Sequence[int]]) -> Json:
    count = sum(map(len, inputs))
    return {"prompt_tokens": count, "total_tokens": count}


def _encoded(vector: list[float], request: EmbeddingRequest) -> list[float] | str:
    if request.encoding_format == "float":
        return vector
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
