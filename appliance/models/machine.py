"""How fast this machine's memory and processor are, from a test of about a second.

Decoding reads all weights once for each token, so memory bandwidth bounds it; prefill multiplies matrices, so
the processor bounds it. Both tests use numpy, which chooses its instructions at run time: SSE2 is enough.

Time is the processor time of each thread (CLOCK_THREAD_CPUTIME_ID), which waiting for memory counts in and waiting
for other processes does not: the result is what the machine does when it has nothing else to do.
"""

import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import psutil
from pydantic import BaseModel, ConfigDict, Field, ValidationError

CACHE_NAME = "machine-speed.json"
_ROUNDS = 3
_ROUND_SECONDS = 0.2
_MATRIX = 96
"""Rows and columns of the matrices: so few that a BLAS library multiplies them in the thread that asks."""
_STACK = 64
"""Matrices that are multiplied in one call."""
_SHARE_OF_MEMORY = 8
_MOST_BYTES = 1 << 30
_LEAST_BYTES = 64 << 20


class MachineKey(BaseModel):
    """What a measurement belongs to; another machine measures anew."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    processor: str
    threads: int
    memory: int


class MachineSpeed(BaseModel):
    """What was measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: MachineKey
    read_bytes_per_second: float = Field(gt=0, allow_inf_nan=False)
    """All threads together, best of the rounds."""
    read_slowest: float = Field(gt=0, allow_inf_nan=False)
    """The worst of the rounds: how much other work's use of the memory disturbed the test."""
    multiply_flops: float = Field(gt=0, allow_inf_nan=False)
    """Floating-point operations a second in single precision, all threads together, best of the rounds."""


def machine_key(proc_folder: Path = Path("/proc")) -> MachineKey:
    """Describe this machine as far as its speed goes."""
    try:
        text = (proc_folder / "cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    lines = (line.partition(":")[2].strip() for line in text.splitlines() if line.startswith(("model name", "Model")))
    threads = usable_threads()
    return MachineKey(processor=next(lines, "unknown"), threads=threads, memory=psutil.virtual_memory().total)


def usable_threads() -> int:
    """Return the physical cores that this process may use, as the experts count them."""
    allowed = len(os.sched_getaffinity(0))
    return max(1, min(allowed, psutil.cpu_count(logical=False) or allowed))


def measured(state: Path, *, again: bool = False) -> MachineSpeed:
    """Return the machine's speed: the kept measurement, or a new one, which is kept if the state folder allows."""
    path, key = state / CACHE_NAME, machine_key()
    if not again:
        try:
            kept = MachineSpeed.model_validate_json(path.read_bytes()[:65536])
        except (OSError, ValidationError):
            kept = None
        if kept is not None and kept.key == key:
            return kept
    speed = measure(key)
    draft = path.with_name(f".{CACHE_NAME}.{os.getpid()}")
    try:
        draft.write_text(speed.model_dump_json(), encoding="utf-8")
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
    return speed


def measure(key: MachineKey) -> MachineSpeed:
    """Measure. Takes about a second on an idle machine, and an eighth of the free memory, 1 GiB at most."""
    room = psutil.virtual_memory().available // _SHARE_OF_MEMORY
    each = max(_LEAST_BYTES, min(_MOST_BYTES, room)) // key.threads
    buffers = [np.zeros(each, np.bool_) for _ in range(key.threads)]
    for buffer in buffers:
        buffer[...] = True  # fresh pages share one page of zeros, which the cache holds
    reads = _rounds([_reader(buffer) for buffer in buffers])
    del buffers
    flops = _rounds([_multiplier() for _ in range(key.threads)])
    return MachineSpeed(key=key, read_bytes_per_second=max(reads), read_slowest=min(reads), multiply_flops=max(flops))


type _Work = Callable[[], float]
"""Does one piece and returns how much it was."""


def _reader(buffer: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> _Work:
    """Read a buffer once: counting what is not zero does next to nothing but read."""

    def work() -> float:
        np.count_nonzero(buffer)
        return float(buffer.nbytes)

    return work


def _multiplier() -> _Work:
    left = np.full((_STACK, _MATRIX, _MATRIX), 0.5, np.float32)
    out = np.empty_like(left)

    def work() -> float:
        np.matmul(left, left, out=out)
        return 2.0 * _STACK * _MATRIX**3

    return work


def _rounds(works: Sequence[_Work]) -> list[float]:
    """Return the amount that all threads together do in a second, for each round."""
    return [_round(works) for _ in range(_ROUNDS)]


def _round(works: Sequence[_Work]) -> float:
    speeds = [0.0] * len(works)
    start = threading.Barrier(len(works))

    def run(index: int, work: _Work) -> None:
        start.wait()
        began = time.thread_time()
        done, now = 0.0, began
        while now - began < _ROUND_SECONDS:
            done += work()
            now = time.thread_time()
        speeds[index] = done / (now - began)

    threads = [threading.Thread(target=run, args=(index, work), daemon=True) for index, work in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(speeds)
