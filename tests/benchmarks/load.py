"""Streaming chat clients."""

import asyncio
import json
import statistics
import time
from dataclasses import dataclass

import aiohttp

from tests.benchmarks.servers import KEY

TOPICS = ("a lighthouse", "a lost key", "two rivers", "the moon", "an old train", "a gardener", "winter", "bees")


@dataclass(frozen=True, slots=True)
class Stream:
    """What one client saw; times in seconds since it asked."""

    arrivals: tuple[float, ...]

    @property
    def tokens(self) -> int:
        return len(self.arrivals)


@dataclass(frozen=True, slots=True)
class Level:
    """Result of a number of clients at once."""

    clients: int
    tokens_per_second: float
    first_p50_ms: float
    first_p95_ms: float
    gap_p50_ms: float
    gap_p95_ms: float


async def stream(session: aiohttp.ClientSession, url: str, prompt: str, tokens: int) -> Stream:
    """Ask for one answer; every chunk with text counts as a token."""
    body = {
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": tokens,
        "temperature": 0,
        "stream": True,
    }
    started = time.perf_counter()
    arrivals: list[float] = []
    async with session.post(f"{url}/v1/chat/completions", json=body) as response:
        response.raise_for_status()
        async for line in response.content:
            if line.startswith(b"data: {"):
                choices = json.loads(line[6:])["choices"]
                if choices and choices[0]["delta"].get("content"):
                    arrivals.append(time.perf_counter() - started)
    return Stream(tuple(arrivals))


async def measure(url: str, clients: int, rounds: int, tokens: int) -> Level:
    """Let clients ask at the same time, several rounds; every prompt is new to the server."""
    streams: list[Stream] = []
    seconds = 0.0
    connector = aiohttp.TCPConnector(force_close=True)
    headers = {"Authorization": f"Bearer {KEY}"}
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
        for number in range(rounds):
            prompts = [
                f"Tell me a long story about {TOPICS[client]}, number {clients}{number}, in great detail."
                for client in range(clients)
            ]
            started = time.perf_counter()
            streams += await asyncio.gather(*(stream(session, url, prompt, tokens) for prompt in prompts))
            seconds += time.perf_counter() - started
    first = [one.arrivals[0] * 1e3 for one in streams]
    gaps = [
        (after - before) * 1e3 for one in streams for before, after in zip(one.arrivals, one.arrivals[1:], strict=False)
    ]
    return Level(
        clients,
        sum(one.tokens for one in streams) / seconds,
        statistics.median(first),
        _p95(first),
        statistics.median(gaps),
        _p95(gaps),
    )


def _p95(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * 0.95))]
