"""What an idle house asks of its disks: opens, reads, writes and flushes of the hub, the node daemon and an expert.

Counts of reads and writes, and bytes that reach a disk, are the kernel's (proc_pid_io(5)); opens and flushes are
counted by strace, where it is installed and may look.
"""

import asyncio
import contextlib
import re
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import psutil

from scripts.house.appliance import Appliance
from scripts.house.processes import free_port
from tests.benchmarks.scenario import Result, Row, Scenario, Setting

SETTLE_SECONDS = 20.0
MEASURE_SECONDS = 60.0
_CALLS = ("openat", "open", "fsync", "fdatasync", "rename", "renameat2", "unlink")
_LINE = re.compile(r"^(?:\[pid\s+\d+\]\s*|\d+\s+)?(?:[\d.]+\s+)?(\w+)\((.*)")
_PATH = re.compile(r'"([^"]*)"')
MOST_WRITTEN = 64 * 1024.0
"""Bytes a minute that an idle hub or node may write to a disk: 92 MB a day, which a flash memory outlives by far."""
MOST_OPENS = 1200.0
"""Opens a minute: twenty a second, of files in /proc and /sys mostly, cost less than a thousandth of a processor."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What the kernel counted of a process."""

    reads: int
    writes: int
    written: int
    """Bytes that were caused to be written to a disk."""
    cpu: float


def counts(pid: int) -> Counts:
    """Return what the kernel has counted so far."""
    told = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    times = psutil.Process(pid).cpu_times()
    return Counts(int(told["syscr"]), int(told["syscw"]), int(told["write_bytes"]), float(times.user + times.system))


@asynccontextmanager
async def traced(pid: int, log: Path) -> AsyncIterator[None]:
    """Have strace write down the calls of a process while the context lasts, where it can."""
    if shutil.which("strace") is None:
        yield
        return
    process = await asyncio.create_subprocess_exec(
        "strace", "-f", "-qq", "-e", f"trace={','.join(_CALLS)}", "-o", str(log), "-p", str(pid),
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


def calls(log: Path) -> Iterator[tuple[str, str]]:
    """Yield each call that strace saw, with the path that it was for; numbers in it are one N."""
    for line in log.read_text(errors="replace").splitlines() if log.exists() else []:
        found = _LINE.match(line)
        if found is not None and found[1] in _CALLS:
            path = _PATH.search(found[2])
            yield found[1], re.sub(r"\d+", "N", path[1]) if path else ""


async def run(setting: Setting) -> Result:
    """Start a house, leave it alone, and count."""
    appliance = Appliance(setting.folder / "io", free_port(), free_port(), experts={"small": setting.model})
    shutil.rmtree(appliance.folder, ignore_errors=True)
    appliance.configure()
    # What the demo sets for people who watch; a house has the default.
    config = appliance.folder / "rouse.toml"
    config.write_text(config.read_text().replace("telemetry_interval = 2\n", ""))
    rows: list[Row] = []
    data: dict[str, object] = {}
    notes: list[str] = []
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession())
        await stack.enter_async_context(appliance.running(http))
        processes = _ours(appliance.folder)
        setting.say(f"a house without requests for {SETTLE_SECONDS + MEASURE_SECONDS:.0f} s")
        await asyncio.sleep(SETTLE_SECONDS)
        before = {name: counts(pid) for name, pid in processes.items()}
        await asyncio.sleep(MEASURE_SECONDS)
        after = {name: counts(pid) for name, pid in processes.items()}
        logs = {name: appliance.folder / f"{name}.strace" for name in processes}
        async with AsyncExitStack() as tracing:
            for name, pid in processes.items():
                await tracing.enter_async_context(traced(pid, logs[name]))
            await asyncio.sleep(MEASURE_SECONDS)
    minutes = MEASURE_SECONDS / 60
    for name in processes:
        one, other = before[name], after[name]
        seen = list(calls(logs[name]))
        opened = Counter(path for call, path in seen if call.startswith("open"))
        flushed = sum(call in {"fsync", "fdatasync"} for call, _ in seen)
        rows += [
            Row(f"{name}: opens a minute", _seen(sum(opened.values()) / minutes), "", ("at most", MOST_OPENS)),
            Row(f"{name}: reads a minute", (other.reads - one.reads) / minutes, ""),
            Row(
                f"{name}: writes a minute",
                (other.writes - one.writes) / minutes,
                "",
                note="sockets are not among them",
            ),
            Row(
                f"{name}: written to disk a minute",
                (other.written - one.written) / minutes,
                "B",
                ("at most", MOST_WRITTEN),
            ),
            Row(f"{name}: flushes a minute", _seen(flushed / minutes), ""),
            Row(f"{name}: processor", 100 * (other.cpu - one.cpu) / MEASURE_SECONDS, "%"),
        ]
        data[name] = {"opened": dict(opened.most_common(40)), "before": repr(one), "after": repr(other)}
        notes += [f"{name} opens {path} {count / minutes:.0f} times a minute" for path, count in opened.most_common(8)]
    return Result(rows, notes=notes, data=data)


def _seen(value: float) -> float | None:
    return value if shutil.which("strace") is not None else None


def _ours(folder: Path) -> dict[str, int]:
    """Return the processes of the house in that folder by what they are."""
    found = {}
    for process in psutil.process_iter(["cmdline", "environ"]):
        environment, command = process.info["environ"] or {}, process.info["cmdline"] or []
        if environment.get("ROUSE_CONFIG_DIR") == str(folder):
            for name in ("hub", "node", "expert"):
                if name in command:
                    found[name] = process.pid
    return found


SCENARIO = Scenario("io", "What an idle house asks of its disks", run)
