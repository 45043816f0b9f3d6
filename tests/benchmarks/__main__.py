"""Measure an expert against llama-cpp-python's own server, and llama.cpp's where there is one.

Run as `python -m tests.benchmarks`; the result is a table and build/bench/expert.json.
"""

import argparse
import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from tests.benchmarks.load import Level, measure
from tests.benchmarks.servers import expert, llama_server, llama_server_path, python_server

MODEL = Path("build/models/SmolLM2-135M-Instruct.Q4_1.gguf")
RESULT = Path("build/bench/expert.json")
OURS = "rouse expert"
SLOTS = 8
ROUNDS = {1: 4, 4: 3, 8: 2}
"""Rounds by the number of clients, so that each level takes about as long."""

type Server = Callable[[Path, int, int], AbstractAsyncContextManager[str]]
type Results = dict[str, list[Level]]


def servers(*, peers: bool) -> dict[str, Server]:
    """Return the servers by name; ours first."""
    found: dict[str, Server] = {OURS: expert}
    if not peers:
        return found
    found["llama_cpp.server"] = python_server
    if llama_server_path():
        found["llama-server"] = llama_server
    return found


async def run(model: Path, threads: int, tokens: int, console: Console, *, peers: bool) -> Results:
    """Measure one server after the other."""
    results: Results = {}
    for name, server in servers(peers=peers).items():
        console.print(f"starting {name}")
        async with server(model, threads, SLOTS) as url:
            await measure(url, 1, 1, 8)
            levels = results[name] = []
            async for level in _levels(url, tokens):
                console.print(f"  {level.clients} clients: {level.tokens_per_second:.0f} tokens/s")
                levels.append(level)
    return results


async def _levels(url: str, tokens: int) -> AsyncIterator[Level]:
    for clients, rounds in ROUNDS.items():
        yield await measure(url, clients, rounds, tokens)


def table(results: Results) -> Table:
    """Return the results with our ratio to each server."""
    shown = Table(title="Streaming chat over HTTP; times in milliseconds", box=SIMPLE_HEAD, pad_edge=False)
    for column in ("server", "clients", "tokens/s", "ours is", "first\np50", "first\np95", "gap\np50", "gap\np95"):
        shown.add_column(column, justify="left" if column == "server" else "right", no_wrap=True)
    for name, levels in results.items():
        for ours, level in zip(results[OURS], levels, strict=True):
            shown.add_row(
                name,
                str(level.clients),
                f"{level.tokens_per_second:.1f}",
                f"{ours.tokens_per_second / level.tokens_per_second:.2f} x",
                *(f"{value:.0f}" for value in (level.first_p50_ms, level.first_p95_ms)),
                *(f"{value:.1f}" for value in (level.gap_p50_ms, level.gap_p95_ms)),
            )
        shown.add_section()
    return shown


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path(os.environ.get("ROUSE_TEST_MODEL", MODEL)))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--alone", action="store_true", help="measure no other server")
    arguments = parser.parse_args()
    console = Console()
    work = run(arguments.model, arguments.threads, arguments.tokens, console, peers=not arguments.alone)
    results = asyncio.run(work)
    console.print(table(results))
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "model": arguments.model.name,
        "threads": arguments.threads,
        "tokens": arguments.tokens,
        "servers": {name: [asdict(level) for level in levels] for name, levels in results.items()},
    }
    RESULT.write_text(json.dumps(document, indent=2) + "\n")
    console.print(f"written to {RESULT}")


if __name__ == "__main__":
    main()
