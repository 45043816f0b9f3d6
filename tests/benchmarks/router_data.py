"""Makes the data set that the router's benchmark learns from: two packaged models and four scripted specialists.

Run as `python -m tests.benchmarks.router_data [--model NAME=FILE …]`; it goes on where it stopped.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from appliance.routing.completion import Source
from appliance.routing.generate import Limits, generate
from appliance.routing.prompts import SHIPPED, queries_of, read_seeds
from tests.benchmarks.specialists import SPECIALISTS

KEY = "benchmark"
FILE = Path(__file__).parent / "router.jsonl"
UNSEEN_SEEDS, UNSEEN_FILE = Path(__file__).parent / "unseen", Path(__file__).parent / "router_unseen.jsonl"
"""Prompts of the benchmark alone, written after the method was fixed."""
SEED, PER_TEMPLATE, MAX_TOKENS = 20261123, 2, 32
START_SECONDS = 180


@asynccontextmanager
async def served(name: str, *command: str) -> AsyncIterator[Source]:
    """Start a server that prints its URL, and end it."""
    environment = {**os.environ, "EXPERT_KEY": KEY, "OMP_WAIT_POLICY": "passive"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *command, stdout=asyncio.subprocess.PIPE, env=environment
    )
    try:
        if process.stdout is None:
            raise RuntimeError("no standard output")
        url = (await asyncio.wait_for(process.stdout.readline(), START_SECONDS)).decode().strip()
        if not url:
            raise RuntimeError(f"{name} did not start")
        yield Source(name, f"{url}/v1", "default", KEY)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def make(models: Sequence[tuple[str, str]]) -> None:
    """Ask everyone."""
    async with AsyncExitStack() as stack:
        experts = [
            await stack.enter_async_context(served(name, "tests.benchmarks.specialists", name)) for name in SPECIALISTS
        ]
        for name, file in models:
            experts.append(await stack.enter_async_context(served(name, "tests.benchmarks.launch_expert", file)))
        limits = Limits(max_tokens=MAX_TOKENS, concurrency=4)
        for folder, data in ((UNSEEN_SEEDS, UNSEEN_FILE), (SHIPPED, FILE)):
            queries = queries_of(read_seeds(folder), per_template=PER_TEMPLATE, seed=SEED)
            print(await generate(queries=queries, experts=experts, file=data, limits=limits))  # noqa: T201


def main() -> None:
    """Make the data set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", action="append", default=[], metavar="NAME=FILE")
    chosen = [name.partition("=") for name in parser.parse_args().model]
    asyncio.run(make([(name, file) for name, _, file in chosen]))


if __name__ == "__main__":
    main()
