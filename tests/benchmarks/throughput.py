"""Throughput at 1, 4, 8 and 16 clients, streaming over HTTP, next to llama.cpp's servers.

The servers take turns request by request, in another order each round, so that what else the machine does hits all
alike. Those that wait are idle: what they use of the processor meanwhile is reported.
"""

import asyncio
import statistics
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from itertools import count

import aiohttp

from appliance.benchmark.client import Outcome, ask, session
from appliance.charts import Axis, Chart, Series
from tests.benchmarks.scenario import Bound, Result, Row, Scenario, Setting, median_ratio
from tests.benchmarks.servers import (
    LLAMA_SERVER,
    OURS,
    PYTHON_SERVER,
    Server,
    Start,
    expert,
    llama_server,
    llama_server_path,
    python_server,
)

SLOTS = 16
TOKENS = 64
REPEATS = {1: 6, 4: 1, 8: 1, 16: 1}
"""How often the clients ask in a round, by their number, so that each takes some seconds."""
PYTHON_LEVELS = (1, 8)
PYTHON_ROUNDS = 3
TOPICS = ("a lighthouse", "a lost key", "two rivers", "the moon", "an old train", "a gardener", "winter", "bees")

type Levels = dict[str, dict[int, list[float]]]


async def run(setting: Setting) -> Result:
    """Measure all that there are."""
    peers: list[Start] = [expert, python_server, *([llama_server] if llama_server_path() else [])]
    speeds: Levels = defaultdict(lambda: defaultdict(list))
    firsts: Levels = defaultdict(lambda: defaultdict(list))
    failures: list[str] = []
    number = count()
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(session())
        running = [await stack.enter_async_context(start(setting, SLOTS)) for start in peers]
        for server in running:
            await ask(http, server.target, _prompt(next(number)), 8)
        idle = await _idle_use(running)
        rounds = setting.rounds * 2 - 1  # a shared machine's speed changes by more than the servers differ
        for turn in range(rounds):
            for clients, repeats in REPEATS.items():
                asking = list(_order(running, turn, clients))
                found: dict[str, list[tuple[list[Outcome], float]]] = defaultdict(list)
                for _ in range(repeats):
                    prompts = [_prompt(next(number)) for _ in range(clients)]
                    for server in asking:
                        found[server.name].append(await _measure(http, server, prompts))
                for name, measured in found.items():
                    outcomes = [one for together, _ in measured for one in together]
                    seconds = sum(seconds for _, seconds in measured)
                    speeds[name][clients].append(sum(one.tokens for one in outcomes) / seconds)
                    firsts[name][clients] += [one.first_token for one in outcomes if one.first_token]
                    failures += [f"{name}: {one.error}: {one.detail}" for one in outcomes if one.error]
            setting.say(f"round {turn + 1} of {rounds}: " + _summary(speeds))
    notes = [f"the idle servers used {idle:.0%} of a core"]
    notes += [f"{len(failures)} requests failed, such as: {failures[0]}"] if failures else []
    return Result(
        _rows(speeds), _charts(speeds, firsts), notes, {"tokens_per_second": _plain(speeds), "first": _plain(firsts)}
    )


def _order(running: Sequence[Server], turn: int, clients: int) -> Iterable[Server]:
    wanted = [
        server
        for server in running
        if server.name != PYTHON_SERVER or (clients in PYTHON_LEVELS and turn < PYTHON_ROUNDS)
    ]
    return reversed(wanted) if turn % 2 else wanted


async def _measure(
    http: aiohttp.ClientSession, server: Server, prompts: Sequence[list[dict[str, str]]]
) -> tuple[list[Outcome], float]:
    """Return what became of requests that were sent together, and after how many seconds the last had ended."""
    started = time.perf_counter()
    outcomes = await asyncio.gather(*(ask(http, server.target, prompt, TOKENS) for prompt in prompts))
    return outcomes, time.perf_counter() - started


async def _idle_use(running: Sequence[Server]) -> float:
    before = sum(server.processor_seconds() for server in running)
    await asyncio.sleep(3)
    return (sum(server.processor_seconds() for server in running) - before) / 3


def _rows(speeds: Levels) -> list[Row]:
    rows: list[Row] = []
    ours = speeds[OURS]
    for clients in REPEATS:
        theirs = speeds[LLAMA_SERVER].get(clients) if LLAMA_SERVER in speeds else None
        what = (
            f"throughput, {clients} clients: ours to {LLAMA_SERVER}"
            if clients > 1
            else f"throughput, 1 client: ours to {LLAMA_SERVER}"
        )
        if theirs:
            rows.append(
                Row(what, median_ratio(ours[clients], theirs), "x", ("at least", 1.0), _speeds(ours[clients], theirs))
            )
        else:
            note = f"{LLAMA_SERVER} could not be had; ours {statistics.median(ours[clients]):.0f} tokens/s"
            rows.append(Row(what, None, "x", ("at least", 1.0), note))
    for clients in PYTHON_LEVELS:
        theirs = speeds[PYTHON_SERVER][clients]
        must: tuple[Bound, float] | None = ("more than", 3.0) if clients == 8 else None
        what = f"throughput, {clients} client{'s' * (clients > 1)}: ours to {PYTHON_SERVER}"
        same = ours[clients][: len(theirs)]
        rows.append(Row(what, median_ratio(same, theirs), "x", must, _speeds(same, theirs)))
    return rows


def _speeds(ours: Sequence[float], theirs: Sequence[float]) -> str:
    return f"{statistics.median(ours):.0f} to {statistics.median(theirs):.0f} tokens/s"


def _summary(speeds: Levels) -> str:
    return "; ".join(
        f"{name} " + " ".join(f"{values[-1]:.0f}" for values in levels.values()) for name, levels in speeds.items()
    )


def _charts(speeds: Levels, firsts: Levels) -> list[Chart]:
    clients = Axis("clients at once", ticks=tuple(REPEATS))

    def series(levels: Levels, factor: float) -> list[Series]:
        return [
            Series(name, [(at, statistics.median(values) * factor) for at, values in found.items() if values])
            for name, found in levels.items()
        ]

    return [
        Chart("Throughput, median of the rounds", clients, Axis("tokens per second"), series(speeds, 1)),
        Chart("Time to first token, median", clients, Axis("milliseconds", log=True), series(firsts, 1e3)),
    ]


def _plain(levels: Levels) -> dict[str, dict[str, list[float]]]:
    return {name: {str(clients): values for clients, values in found.items()} for name, found in levels.items()}


def _prompt(number: int) -> list[dict[str, str]]:
    text = f"Tell me a long story about {TOPICS[number % len(TOPICS)]}, number {number}, in great detail."
    return [{"role": "user", "content": text}]


SCENARIO = Scenario("throughput", "Throughput", run)
