"""The worst gap in a running stream while a 1,500-token prompt joins, by the median gap before."""

import asyncio
import itertools
import statistics
import time
from contextlib import AsyncExitStack

import aiohttp

from appliance.benchmark.client import UNFINISHED, Outcome, ask, ask_into, session
from tests.benchmarks.houses import conversation, first_token, prefix
from tests.benchmarks.scenario import Result, Row, Scenario, Setting
from tests.benchmarks.servers import LLAMA_SERVER, OURS, Server, Start, expert, llama_server, llama_server_path

SLOTS = 8
TOKENS = 400
ALONE = 30
"""Gaps before the other one joins."""
STORY = "Tell me a very long story about a lighthouse and the people who live in it, in great detail."


async def run(setting: Setting) -> Result:
    """Measure both servers in turn."""
    ratios: dict[str, list[float]] = {}
    gaps: dict[str, list[tuple[float, float]]] = {}
    rounds = setting.rounds // 2 + 1
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(session())
        starts: list[Start] = [expert, *([llama_server] if llama_server_path() else [])]
        running = [await stack.enter_async_context(start(setting, SLOTS)) for start in starts]
        for turn in range(rounds):
            for server in reversed(running) if turn % 2 else running:
                quiet, worst = await _join(http, server, turn)
                ratios.setdefault(server.name, []).append(worst / quiet)
                gaps.setdefault(server.name, []).append((quiet, worst))
            setting.say("; ".join(f"{name} {found[-1]:.1f} x" for name, found in ratios.items()))
    rows = [
        Row(
            f"worst gap while a 1,500-token prompt joins, to the median gap: {name}",
            statistics.median(found),
            "x",
            ("less than", 3.0) if name == OURS else None,
            f"the largest of {len(found)}: {max(found):.1f} x; median gap {gaps[name][0][0] * 1e3:.0f} ms",
        )
        for name, found in ratios.items()
    ]
    if LLAMA_SERVER not in ratios:
        rows.append(Row(f"the same of {LLAMA_SERVER}", None, note="it could not be had"))
    return Result(rows, data={"median_and_worst_gap_seconds": gaps})


async def _join(http: aiohttp.ClientSession, server: Server, turn: int) -> tuple[float, float]:
    """Return the median gap alone, and the worst from the other's start to its first token."""
    stream = Outcome(time.perf_counter())
    messages = [{"role": "user", "content": f"{turn + 1}. {STORY}"}]
    reading = asyncio.create_task(ask_into(stream, http, server.target, messages, TOKENS))
    try:
        while len(stream.arrivals) <= ALONE and not reading.done():
            await asyncio.sleep(0.002)
        other = await ask(
            http, server.target, conversation(prefix(5000 + turn), "Tell me a long story about this house."), 8
        )
    finally:
        reading.cancel()
        await asyncio.wait([reading])
    if len(stream.arrivals) <= ALONE:
        raise RuntimeError(f"{server.name}: the stream ended after {stream.tokens} tokens: {stream.error}")
    joined, served = other.started, other.started + first_token(other)
    times = [at for at, _ in stream.arrivals]
    pairs = list(itertools.pairwise(times))
    # The gap in which the other one is served belongs to it too: the stream may have stood still all the time.
    during = [after - before for before, after in pairs if after >= joined and before <= served]
    if stream.error == UNFINISHED and times[-1] < served:
        during.append(served - times[-1])
    if not during:
        raise RuntimeError(f"{server.name}: the stream ended before the other one joined")
    quiet = statistics.median(after - before for before, after in pairs if after < joined)
    return quiet, max(during)


SCENARIO = Scenario("joining", "A long prompt joins", run)
