"""Full load on an expert and a gateway for some minutes, with all kinds of requests: memory stays flat, nothing hangs.

Run by `make soak`, or as `python -m tests.benchmarks.soak --minutes 10`; writes build/bench/soak.svg and soak.json.
"""

import argparse
import asyncio
import dataclasses
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import numpy as np

from appliance.benchmark.client import TIMED_OUT, UNFINISHED, Outcome, Target, ask, ask_into, session
from appliance.charts import Axis, Chart, Series, as_svg
from tests.benchmarks.houses import conversation, prefix
from tests.benchmarks.running import FOLDER, MODEL, until_told
from tests.benchmarks.scenario import Setting
from tests.benchmarks.servers import Server, expert, python

SLOTS = 4
CLIENTS = 8
"""More than slots: some always wait."""
PATIENCE = 180.0
"""Seconds after which a request hangs."""
SAMPLE_SECONDS = 2.0
WARM_UP = 0.3
"""Share of the time that does not count: caches fill, and the allocator finds its size."""
MOST_GROWTH = 2.0
"""MiB a minute, by a straight line through what comes after: a leak of 1 kB a request would be about that."""
TOOL = {
    "type": "function",
    "function": {
        "name": "turn_on",
        "description": "Turn on a device.",
        "parameters": {"type": "object", "properties": {"name": {"type": "string", "enum": ["lamp", "fan"]}}},
    },
}
EXPECTED = {"empty answer"}
"""A tool call without arguments, or a model that has nothing to say."""


@dataclass(slots=True)
class Soak:
    """What happened so far."""

    kinds: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    hung: int = 0
    memory: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """Minutes and MiB, by process."""

    def take(self, kind: str, outcome: Outcome) -> None:
        """Count a request."""
        self.kinds[kind] += 1
        self.hung += outcome.error == TIMED_OUT
        if outcome.error and outcome.error not in EXPECTED:
            self.errors[f"{kind}: {outcome.error}: {outcome.detail}"] += 1


async def run(setting: Setting, minutes: float) -> Soak:
    """Run it all."""
    soak = Soak()
    async with expert(setting, SLOTS) as served:
        behind = ["-m", "tests.benchmarks.launch_gateway", f"{served.target.base}/v1"]
        async with python(setting, "soak-gateway", behind, "gateway") as gateway, session() as http:
            end = time.monotonic() + minutes * 60
            async with asyncio.TaskGroup() as group:
                group.create_task(_watch(soak, {"expert": served, "gateway": gateway}, end, setting))
                for number in range(CLIENTS):
                    target = dataclasses.replace((served if number % 4 == 0 else gateway).target, timeout=PATIENCE)
                    group.create_task(_client(soak, http, target, random.Random(number), end))
    return soak


async def _client(soak: Soak, http: aiohttp.ClientSession, target: Target, chance: random.Random, end: float) -> None:
    while time.monotonic() < end:
        kind = chance.choice(("short", "short", "long", "cancelled", "tools"))
        number = chance.randrange(10**6)
        words = conversation("Be kind.", f"Tell me story number {number}.")
        if kind == "cancelled":
            soak.take(kind, await _leave_early(http, target, words, chance.uniform(0.05, 2.0)))
        elif kind == "tools":
            with_tools = dataclasses.replace(target, options={"tools": [TOOL]})
            words = conversation("You control a house.", f"Turn on lamp {number}.")
            soak.take(kind, await ask(http, with_tools, words, 32))
        elif kind == "long":
            # Some prefixes come again, others are new.
            words = conversation(prefix(number % 20)[: chance.randrange(500, 5000)], "What is on?")
            soak.take(kind, await ask(http, target, words, 16))
        else:
            soak.take(kind, await ask(http, target, words, chance.randrange(4, 48)))


async def _leave_early(
    http: aiohttp.ClientSession, target: Target, words: Sequence[dict[str, str]], after: float
) -> Outcome:
    outcome = Outcome(time.perf_counter())
    asking = asyncio.create_task(ask_into(outcome, http, target, words, 200))
    await asyncio.wait([asking], timeout=after)
    asking.cancel()
    await asyncio.wait([asking])
    if outcome.error == UNFINISHED:
        outcome.error = None
    return outcome


async def _watch(soak: Soak, processes: dict[str, Server], end: float, setting: Setting) -> None:
    start = told = time.monotonic()
    while (now := time.monotonic()) < end:
        for name, server in processes.items():
            mebibytes = server.process.memory_info().rss / 2**20
            soak.memory.setdefault(name, []).append(((now - start) / 60, mebibytes))
        if now - told > 30:
            told = now
            sizes = ", ".join(f"{name} {found[-1][1]:.0f} MiB" for name, found in soak.memory.items())
            setting.say(f"{(now - start) / 60:.1f} min: {soak.kinds.total()} requests, {sizes}")
        await asyncio.sleep(SAMPLE_SECONDS)


def growth(points: Sequence[tuple[float, float]]) -> float:
    """Return the slope after the warm-up, in MiB a minute."""
    minutes, sizes = np.asarray(points, dtype=float).T
    counted = minutes >= minutes[-1] * WARM_UP
    return float(np.polyfit(minutes[counted], sizes[counted], 1)[0])


def main() -> None:
    """Soak; exit with 1 when memory grows, a request hangs or one fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--model", type=Path, default=Path(os.environ.get("ROUSE_TEST_MODEL", MODEL)))
    arguments = parser.parse_args()
    setting = Setting(arguments.model.resolve(), (FOLDER / "work").resolve(), lambda text: print(text, flush=True))  # noqa: T201  # a command's output
    soak = asyncio.run(until_told(run(setting, arguments.minutes)))
    slopes = {name: growth(points) for name, points in soak.memory.items()}
    FOLDER.mkdir(parents=True, exist_ok=True)
    lines = [Series(name, points) for name, points in soak.memory.items()]
    chart = Chart("Memory under full load", Axis("minutes"), Axis("resident memory (MiB)"), lines)
    (FOLDER / "soak.svg").write_text(as_svg(chart))
    document = {
        "requests": soak.kinds,
        "errors": soak.errors,
        "hung": soak.hung,
        "memory_mib_by_minute": soak.memory,
        "growth_mib_per_minute": slopes,
        "limit": MOST_GROWTH,
    }
    (FOLDER / "soak.json").write_text(json.dumps(document, indent=1) + "\n")
    bad = [f"{name} grows by {slope:.2f} MiB a minute" for name, slope in slopes.items() if slope > MOST_GROWTH]
    bad += [f"{soak.hung} requests hung"] if soak.hung else []
    bad += [f"{count} requests failed: {kind}" for kind, count in soak.errors.items()]
    said = [f"{dict(soak.kinds)}", *(f"{name}: {slope:+.2f} MiB a minute" for name, slope in slopes.items())]
    print("\n".join([*said, *(f"FAIL: {text}" for text in bad)] if bad else [*said, "PASS"]))  # noqa: T201
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
