"""An expert is killed while it and another one have 100 requests: what becomes of each."""

import asyncio
import shutil
import time
from collections import Counter

import aiohttp

from appliance.benchmark.client import TIMED_OUT, UNFINISHED, Outcome, Target, ask_into, session
from tests.benchmarks.scenario import Result, Row, Scenario, Setting
from tests.faults.house import House, running_house

REQUESTS = 100
TOKENS = 24
PATIENCE = 240.0
"""Seconds without an end that count as hanging."""
STREAMING = 12
"""Requests of the expert that stream, or did, when it is killed."""
CLEAR = ("error in the stream",)


async def run(setting: Setting) -> Result:
    """Run a hub and a node with two experts, and kill the one that answers."""
    folder = setting.folder / "house"
    shutil.rmtree(folder, ignore_errors=True)
    group = "\n".join(f"[experts.{name}]\nthreads = 1\nqueue = {REQUESTS}" for name in ("one", "two"))
    experts = {"one": setting.model.resolve(), "two": setting.model.resolve()}
    async with running_house(folder, "amqtt", experts=experts, group=group) as house:
        outcomes, killed, name = await _load(house)
    streamed = [one for one in outcomes if one.arrivals and one.arrivals[0][0] <= killed]
    waiting = [one for one in outcomes if one not in streamed]
    hung = [one for one in outcomes if one.error in {TIMED_OUT, UNFINISHED}]
    failed_waiting = [one for one in waiting if one.error]
    unclear = [one for one in streamed if one.error and one.error not in CLEAR]
    cut = [one for one in streamed if one.error]
    elsewhere = Counter(one.answered_by for one in waiting if not one.error)
    kinds = Counter(f"{one.error}: {one.detail}" for one in outcomes if one.error)
    note = f"{len(waiting)} were not yet streaming; answered by {dict(elsewhere)}"
    done = len(streamed) - len(cut)
    rows = [
        Row(
            f"expert killed, {REQUESTS} in flight: not yet streaming and not completed",
            float(len(failed_waiting)),
            "requests",
            ("at most", 0.0),
            note,
        ),
        Row(
            "expert killed: streaming and ended without a clear error",
            float(len(unclear)),
            "requests",
            ("at most", 0.0),
            f"{len(cut)} ended by an error, {done} had ended or ran on elsewhere",
        ),
        Row("expert killed: hung", float(len(hung)), "requests", ("at most", 0.0), f"within {PATIENCE:.0f} s"),
    ]
    setting.say(f"killed {name}: {len(streamed)} streaming, {len(waiting)} waiting, errors {dict(kinds)}")
    return Result(
        rows,
        notes=[f"{count} requests: {kind}" for kind, count in kinds.items()],
        data={"errors": kinds, "elsewhere": elsewhere},
    )


async def _load(house: House) -> tuple[list[Outcome], float, str]:
    """Return what became of the requests, when the expert was killed, and which."""
    target = Target(house.url, house.appliance.secret("gateway.key"), timeout=PATIENCE)
    outcomes = [Outcome(time.perf_counter()) for _ in range(REQUESTS)]
    async with session() as http, asyncio.TaskGroup() as group:
        tasks = [group.create_task(_ask(outcome, http, target, number)) for number, outcome in enumerate(outcomes)]
        while sum(bool(one.arrivals) for one in outcomes) < STREAMING and not all(task.done() for task in tasks):
            await asyncio.sleep(0.01)
        name = Counter(one.answered_by for one in outcomes if one.arrivals).most_common(1)[0][0]
        if name is None:
            raise RuntimeError("the gateway does not say which expert answered")
        house.expert(name).kill()
        killed = time.perf_counter()
    return outcomes, killed, name


async def _ask(outcome: Outcome, http: aiohttp.ClientSession, target: Target, number: int) -> None:
    prompt = f"Tell me a story about the number {number}."
    await ask_into(outcome, http, target, [{"role": "user", "content": prompt}], TOKENS)


SCENARIO = Scenario("killed", "An expert is killed", run)
