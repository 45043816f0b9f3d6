"""What the gateway adds to the first token, with 100 streams at once and an expert that costs nothing.

The expert is a process that sends canned tokens at a steady pace. The same load goes to it directly and through the
gateway, in turn; the percentiles of both are compared. The clients start one after another, as people do: a hundred at
the same instant would measure a queue.
"""

import asyncio
import time

import numpy as np

from appliance.benchmark.client import Outcome, Target, ask, session
from appliance.charts import Axis, Chart, Series
from tests.benchmarks.scenario import Result, Row, Scenario, Setting
from tests.benchmarks.servers import python

STREAMS = 100
FIRST_SECONDS = 0.1
TOKENS = 30
INTERVAL_SECONDS = 0.1
ROUND_SECONDS = 12.0
ANSWER_SECONDS = FIRST_SECONDS + TOKENS * INTERVAL_SECONDS
PERCENTILES = (50, 75, 90, 95, 99)


async def run(setting: Setting) -> Result:
    """Load both in turn."""
    first: dict[str, list[float]] = {"direct": [], "gateway": []}
    failures: list[str] = []
    pace = ["--first", str(FIRST_SECONDS), "--tokens", str(TOKENS), "--interval", str(INTERVAL_SECONDS)]
    command = ["-m", "tests.benchmarks.launch_canned", *pace]
    async with python(setting, "canned", command, "canned expert") as canned:
        behind = ["-m", "tests.benchmarks.launch_gateway", f"{canned.target.base}/v1"]
        async with python(setting, "gateway", behind, "gateway") as gateway:
            before = gateway.processor_seconds()
            answers = 0
            for turn in range(max(2, setting.rounds // 2)):
                both = [("direct", canned.target), ("gateway", gateway.target)]
                for name, target in both if turn % 2 == 0 else both[::-1]:
                    outcomes = await _load(target)
                    first[name] += [one.first_token for one in outcomes if one.first_token is not None]
                    failures += [f"{name}: {one.error}: {one.detail}" for one in outcomes if one.error]
                    answers += len(outcomes) if name == "gateway" else 0
                setting.say(
                    f"round {turn + 1}: "
                    + "; ".join(f"{name} {np.median(found) * 1e3:.1f} ms" for name, found in first.items())
                )
            cost = (gateway.processor_seconds() - before) / max(answers, 1)
    points = {name: np.percentile(np.asarray(found) * 1e3, PERCENTILES) for name, found in first.items()}
    added = dict(zip(PERCENTILES, (points["gateway"] - points["direct"]).tolist(), strict=True))
    said = {name: dict(zip(PERCENTILES, found.tolist(), strict=True)) for name, found in points.items()}
    answered = len(first["gateway"])
    rows = [
        Row(
            f"gateway, {STREAMS} streams: added to the first token, p{percentile}",
            added[percentile],
            "ms",
            ("less than", limit),
            f"{said['direct'][percentile]:.1f} to {said['gateway'][percentile]:.1f} ms, {answered} answers",
        )
        for percentile, limit in ((50, 2.0), (99, 15.0))
    ]
    chart = Chart(
        "First token directly and through the gateway",
        Axis("percentile", ticks=PERCENTILES),
        Axis("milliseconds"),
        [Series(name, list(found.items())) for name, found in said.items()],
    )
    notes = [f"the gateway used {cost * 1e3:.1f} ms of processor time for an answer of {TOKENS} tokens"]
    notes += [f"{len(failures)} requests failed, such as: {failures[0]}"] if failures else []
    data = {"first_token_ms": said, "added_ms": added, "failures": len(failures), "processor_seconds_each": cost}
    return Result(rows, [chart], notes, data)


async def _load(target: Target) -> list[Outcome]:
    """Keep 100 streams running; return those that were begun when all of them ran."""
    outcomes: list[Outcome] = []
    steady = time.perf_counter() + ANSWER_SECONDS
    end = steady + ROUND_SECONDS

    async with session() as http:

        async def client(number: int) -> None:
            await asyncio.sleep(ANSWER_SECONDS * number / STREAMS)
            while time.perf_counter() < end:
                outcome = await ask(http, target, [{"role": "user", "content": "Hello"}], TOKENS)
                if outcome.started >= steady:
                    outcomes.append(outcome)

        async with asyncio.TaskGroup() as group:
            for number in range(STREAMS):
                group.create_task(client(number))
    return outcomes


SCENARIO = Scenario("gateway", "Gateway overhead", run)
