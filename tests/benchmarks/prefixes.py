"""First token after a 1,500-token prefix: cold, the same agent again, and a second agent with another question."""

import statistics
from collections import defaultdict
from contextlib import AsyncExitStack

import aiohttp

from appliance.benchmark.client import Outcome, ask, session
from tests.benchmarks.houses import conversation, first_token, prefix
from tests.benchmarks.scenario import Result, Row, Scenario, Setting, median_ratio
from tests.benchmarks.servers import LLAMA_SERVER, OURS, Server, Start, expert, llama_server, llama_server_path

SLOTS = 8
TOKENS = 8
QUESTIONS = {
    "cold": "Tell me a long story about this house.",
    "again": "Tell me a long story about this house.",
    "second agent": "Write a poem about what is warm in it.",
}


async def run(setting: Setting) -> Result:
    """Measure both servers in turn, with a new prefix each time."""
    times: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    computed: dict[str, list[int | None]] = defaultdict(list)
    rounds = setting.rounds // 2 + 1
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(session())
        starts: list[Start] = [expert, *([llama_server] if llama_server_path() else [])]
        running = [await stack.enter_async_context(start(setting, SLOTS)) for start in starts]
        for server in running:
            await ask(http, server.target, conversation("Be kind.", "Hello!"), TOKENS)
        for turn in range(rounds):
            for server in reversed(running) if turn % 2 else running:
                for kind, outcome in (await _visit(http, server, turn)).items():
                    times[server.name][kind].append(first_token(outcome))
                    computed[f"{server.name}, {kind}"].append(outcome.computed_tokens)
            setting.say(f"prefix {turn + 1} of {rounds}: {_said(times)}")
    return Result(_rows(times), (), (), {"first_token_seconds": times, "computed_tokens": computed})


async def _visit(http: aiohttp.ClientSession, server: Server, turn: int) -> dict[str, Outcome]:
    beginning = prefix(1000 + turn)
    outcomes: dict[str, Outcome] = {}
    for kind, question in QUESTIONS.items():
        outcomes[kind] = await ask(http, server.target, conversation(beginning, question), TOKENS)
    return outcomes


def _rows(times: dict[str, dict[str, list[float]]]) -> list[Row]:
    ours = times[OURS]
    what = f"first token, 1,500-token prefix, second agent: ours to {LLAMA_SERVER}"
    rows = [Row(what, None, "x", ("at most", 1.1), f"{LLAMA_SERVER} could not be had")]
    if LLAMA_SERVER in times:
        theirs = times[LLAMA_SERVER]
        ratio = median_ratio(ours["second agent"], theirs["second agent"])
        rows = [Row(what, ratio, "x", ("at most", 1.1), _milliseconds(ours["second agent"], theirs["second agent"]))]
        again = median_ratio(ours["again"], theirs["again"])
        what = f"first token, 1,500-token prefix, same agent again: ours to {LLAMA_SERVER}"
        rows.append(Row(what, again, "x", None, _milliseconds(ours["again"], theirs["again"])))
        cold = median_ratio(ours["cold"], theirs["cold"])
        what = f"first token, 1,500-token prefix, cold: ours to {LLAMA_SERVER}"
        rows.append(Row(what, cold, "x", None, _milliseconds(ours["cold"], theirs["cold"])))
    faster = median_ratio(ours["cold"], ours["second agent"])
    what = "first token, 1,500-token prefix: recomputing to second agent"
    return [*rows, Row(what, faster, "x", ("more than", 10.0), _milliseconds(ours["cold"], ours["second agent"]))]


def _milliseconds(one: list[float], other: list[float]) -> str:
    return f"{statistics.median(one) * 1e3:,.0f} to {statistics.median(other) * 1e3:,.0f} ms"


def _said(times: dict[str, dict[str, list[float]]]) -> str:
    return "; ".join(
        f"{name} " + ", ".join(f"{kind} {values[-1]:.2f} s" for kind, values in kinds.items())
        for name, kinds in times.items()
    )


SCENARIO = Scenario("prefixes", "Shared prefixes", run)
