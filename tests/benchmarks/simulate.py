"""How fast `rouse power simulate` is, and how much memory it takes: a week of a fleet by four policies."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import psutil

from tests.benchmarks.scenario import Result, Row, Scenario, Setting

FLEETS = (1, 1_000, 10_000)
MEGABYTES = 1e6
POLL_SECONDS = 0.2


async def run(setting: Setting) -> Result:
    """Simulate fleets of growing size, on as many processes as the setting has threads."""
    folder = setting.folder / "simulate"
    folder.mkdir(parents=True, exist_ok=True)
    reports: dict[int, dict[str, Any]] = {}
    memory: dict[int, float] = {}
    for nodes in FLEETS:
        reports[nodes], memory[nodes] = await _simulate(folder, nodes, setting.threads)
        speed = reports[nodes]["node_hours_per_second"]
        setting.say(f"{nodes:,} nodes: {speed:,.0f} node hours a second, {memory[nodes]:.0f} MB")
    largest = FLEETS[-1]
    found = reports[largest]
    rows = [
        Row(
            f"simulated hours of nodes and policies, {largest:,} nodes",
            found["node_hours_per_second"],
            "node·h/s",
            ("at least", 50_000.0),
            f"a week by {len(found['outcomes'])} policies in {found['seconds']:.1f} s on {setting.threads} processes",
        ),
        Row(
            f"most memory of all its processes, {largest:,} nodes",
            memory[largest],
            "MB",
            ("at most", 200.0 * (setting.threads + 1)),
            f"{memory[FLEETS[1]]:.0f} MB for {FLEETS[1]:,} nodes",
        ),
    ]
    return Result(
        rows, data={"reports": {str(nodes): report for nodes, report in reports.items()}, "memory_mb": memory}
    )


async def _simulate(folder: Path, nodes: int, processes: int) -> tuple[dict[str, Any], float]:
    """Return the report of one simulation, and the most memory (RSS, in MB) that it took."""
    command = (sys.executable, "-m", "appliance", "--config-dir", str(folder), "power", "simulate")
    arguments = ("--nodes", str(nodes), "--processes", str(processes), "--json")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ROUSE_")}
    process = await asyncio.create_subprocess_exec(
        *command, *arguments, stdout=asyncio.subprocess.PIPE, env=environment
    )
    most = 0.0
    reading = asyncio.create_task(process.communicate())
    while not reading.done():
        most = max(most, _memory(process.pid))
        await asyncio.wait([reading], timeout=POLL_SECONDS)
    output, _ = await reading
    if process.returncode:
        raise RuntimeError(f"the simulation of {nodes} nodes ended with code {process.returncode}")
    found: dict[str, Any] = json.loads(output)
    return found, most


def _memory(pid: int) -> float:
    total = 0.0
    try:
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            total += process.memory_info().rss
    except psutil.NoSuchProcess:
        pass
    return total / MEGABYTES


SCENARIO = Scenario("simulate", "Fleets in the power simulator", run)
