"""First token of a known 1,500-token prefix after the expert's process was ended and started again."""

import shutil
import statistics

import aiohttp

from appliance.benchmark.client import Outcome, ask, session
from tests.benchmarks.houses import conversation, first_token, prefix
from tests.benchmarks.scenario import Result, Row, Scenario, Setting, median_ratio
from tests.benchmarks.servers import Server, expert

SLOTS = 8
TOKENS = 8
VISITS = 3
"""How often the prefix is used before the restart: only one that is used again is worth keeping."""


async def run(setting: Setting) -> Result:
    """Restart once for each of some prefixes; what must be recomputed is measured by a prefix of the same length."""
    folder = setting.folder / "prefixes"
    shutil.rmtree(folder, ignore_errors=True)
    known: list[float] = []
    recomputed: list[float] = []
    cached: list[int | None] = []
    async with session() as http:
        for turn in range(max(2, setting.rounds // 2)):
            async with expert(setting, SLOTS, prefix_folder=str(folder)) as server:
                for visit in range(VISITS):
                    await _ask(http, server, 3000 + turn, f"Tell me story number {visit} about this house.")
            async with expert(setting, SLOTS, prefix_folder=str(folder)) as server:
                await ask(http, server.target, conversation("Be kind.", "Hello!"), TOKENS)
                outcome = await _ask(http, server, 3000 + turn, "Write a poem about what is warm in it.")
                known.append(first_token(outcome))
                cached.append(outcome.cached_tokens)
                other = await _ask(http, server, 4000 + turn, "Write a poem about what is warm in it.")
                recomputed.append(first_token(other))
            setting.say(f"restart {turn + 1}: known {known[-1]:.2f} s, recomputed {recomputed[-1]:.2f} s")
    row = Row(
        "first token of a known 1,500-token prefix after a restart: recomputing to it",
        median_ratio(recomputed, known),
        "x",
        ("more than", 5.0),
        f"{statistics.median(recomputed) * 1e3:,.0f} to {statistics.median(known) * 1e3:,.0f} ms",
    )
    return Result([row], data={"known_seconds": known, "recomputed_seconds": recomputed, "cached_tokens": cached})


async def _ask(http: aiohttp.ClientSession, server: Server, number: int, question: str) -> Outcome:
    return await ask(http, server.target, conversation(prefix(number), question), TOKENS)


SCENARIO = Scenario("restart", "A known prefix after a restart", run)
