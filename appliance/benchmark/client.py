"""Asks for one streamed answer and notes when its tokens came."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from appliance.benchmark.stream import LONGEST_LINE, AnswerReader, StreamError, error_of

HTTP_ERRORS = (aiohttp.ClientError, OSError)
UNREACHABLE = "not reachable"
TIMED_OUT = "timed out"
UNFINISHED = "unfinished"
"""Not the server's fault: the measurement ended first."""


@dataclass(frozen=True, slots=True)
class Target:
    """What is asked."""

    url: str
    """Base URL; what it ends in, `/v1` or not, does not matter."""
    api_key: str | None = None
    model: str | None = None
    timeout: float = 300.0
    """Seconds that a whole answer may take."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the request's body."""

    @property
    def base(self) -> str:
        """The URL without `/v1`."""
        return self.url.rstrip("/").removesuffix("/v1")


@dataclass(slots=True)
class Outcome:
    """What became of a request; times in seconds of `time.perf_counter`."""

    started: float
    ended: float = 0.0
    arrivals: list[tuple[float, int]] = field(default_factory=list)
    """When events with text came, and how many at once."""
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    """Prompt tokens that the server took from its cache."""
    completion_tokens: int | None = None
    error: str | None = None
    """The kind that it is counted as; None if it went well."""
    detail: str = ""
    answered_by: str | None = None
    """The expert that the gateway chose."""

    @property
    def events(self) -> int:
        """Events with text."""
        return sum(count for _, count in self.arrivals)

    @property
    def tokens(self) -> int:
        """Tokens of the answer: what the server says, else one for each event."""
        return self.completion_tokens if self.completion_tokens is not None else self.events

    @property
    def computed_tokens(self) -> int | None:
        """Prompt tokens that the server had to compute."""
        if self.prompt_tokens is None or self.cached_tokens is None:
            return None
        return self.prompt_tokens - self.cached_tokens

    @property
    def first_token(self) -> float | None:
        """Seconds to the first token."""
        return self.arrivals[0][0] - self.started if self.arrivals else None

    @property
    def gaps(self) -> list[float]:
        """Seconds between one arrival of text and the next."""
        times = [time for time, _ in self.arrivals]
        return [after - before for before, after in itertools.pairwise(times)]


@asynccontextmanager
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """Open an HTTP client without connections that are kept: a server may close those unnoticed."""
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    timeout = aiohttp.ClientTimeout(total=None)  # `Target.timeout` is the limit
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, read_bufsize=LONGEST_LINE) as http:
        yield http


async def ask(
    http: aiohttp.ClientSession, target: Target, messages: Sequence[Mapping[str, Any]], tokens: int
) -> Outcome:
    """Ask for an answer of so many tokens; whatever happens is in what is returned.

    When it is cancelled the outcome so far is lost; use `ask_into` to keep it.
    """
    outcome = Outcome(time.perf_counter())
    await ask_into(outcome, http, target, messages, tokens)
    return outcome


async def ask_into(
    outcome: Outcome,
    http: aiohttp.ClientSession,
    target: Target,
    messages: Sequence[Mapping[str, Any]],
    tokens: int,
) -> None:
    """Do as `ask` does, noting everything in `outcome` as it comes."""
    outcome.error = UNFINISHED
    error: str | None = None
    try:
        async with asyncio.timeout(target.timeout):
            await _stream(outcome, http, target, messages, tokens)
    except TimeoutError:
        error, outcome.detail = TIMED_OUT, f"no complete answer within {target.timeout:g} s"
    except (aiohttp.ClientConnectorError, aiohttp.InvalidURL) as failure:
        error, outcome.detail = UNREACHABLE, str(failure)
    except StreamError as failure:
        error, outcome.detail = failure.kind, str(failure)
    except HTTP_ERRORS as failure:
        error, outcome.detail = "connection lost", str(failure) or type(failure).__name__
    except ValueError as failure:  # what yarl and aiohttp say of a URL that is none
        error, outcome.detail = UNREACHABLE, str(failure)
    finally:
        outcome.ended = time.perf_counter()
    outcome.error = error


async def _stream(
    outcome: Outcome,
    http: aiohttp.ClientSession,
    target: Target,
    messages: Sequence[Mapping[str, Any]],
    tokens: int,
) -> None:
    body = {
        "messages": list(messages),
        "max_tokens": tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        **({"model": target.model} if target.model else {}),
        **target.options,
    }
    headers = {"Authorization": f"Bearer {target.api_key}"} if target.api_key else {}
    url = target.base + "/v1/chat/completions"
    async with http.post(url, json=body, headers=headers, allow_redirects=False) as response:
        outcome.answered_by = response.headers.get("X-Rouse-Expert")
        if response.status != 200:
            raise StreamError(f"HTTP {response.status}", error_of(await response.content.read(LONGEST_LINE)))
        reader = AnswerReader()
        async for received in response.content.iter_any():
            texts = reader.feed(received)
            if texts:
                outcome.arrivals.append((time.perf_counter(), texts))
    _take_counts(outcome, reader)
    reader.end()
    if not outcome.arrivals:
        raise StreamError("empty answer", "the answer has no text")


def _take_counts(outcome: Outcome, reader: AnswerReader) -> None:
    details = reader.usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    outcome.prompt_tokens = _count(reader.usage.get("prompt_tokens"))
    outcome.completion_tokens = _count(reader.usage.get("completion_tokens"))
    outcome.cached_tokens = _count(cached if cached is not None else reader.timings.get("cache_n"))


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 31 else None
