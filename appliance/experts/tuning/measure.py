"""The self-benchmark: a few seconds of real steps on the loaded model.

Each step is timed several times in turns and its fastest time counts, because whatever else runs can only
make a step slower. How much else ran is measured as well: a result from a busy machine is used, but says so.
"""

import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import psutil

from appliance.experts.backend import Run
from appliance.experts.tuning.costs import Cost, CostModel

BUDGET_SECONDS = 4.0
"""A small model's measurement takes about this long; a large one's at least a few steps of each kind."""
ROUNDS = 5
FEWER_THREADS_WIN = 1.03
"""More threads must be faster by more than 3 % to be worth the cores."""
PREFILL_SIZES = (2, 4, 8, 16, 32, 64, 128)
DECODE_SIZES = (1, 2, 4, 8, 16, 32)
MAX_FOREIGN_SHARE = 0.1
"""Share of the machine's cores that others may have used before the result is doubtful."""
MAX_SPREAD = 1.6
"""Median over fastest time of the same step, above which the result is doubtful."""


class Tunable(Protocol):
    """What the benchmark needs of a backend; see `backend.Backend`."""

    def decode(self, runs: Sequence[Run]) -> None:
        """Compute a batch and wait for it."""

    def keep(self, seq: int, tokens: int) -> int:
        """Cut a sequence."""

    def set_threads(self, threads: int) -> None:
        """Use so many compute threads from the next step on."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """What the benchmark found."""

    threads: int
    """The fastest number, over a single sequence and all slots."""
    costs: CostModel
    """Of steps with that many threads."""
    doubt: str | None
    """Why the result should not be kept, None if it may be."""
    seconds: float
    """How long it took."""


def thread_candidates(physical: int, logical: int) -> tuple[int, ...]:
    """Return the thread counts to try, the likeliest first: all cores, all hardware threads, then halves, then 1."""
    halves: list[int] = []
    while physical >> (len(halves) + 1) >= 1:
        halves.append(physical >> (len(halves) + 1))
    return tuple(dict.fromkeys((physical, logical, *halves, 1)))


def measure(
    backend: Tunable,
    *,
    slots: int,
    batch_tokens: int,
    candidates: Sequence[int],
    budget: float = BUDGET_SECONDS,
    clock: Callable[[], float] = time.perf_counter,
) -> Measurement:
    """Measure an idle backend; its sequences are empty before and after.

    Args:
        backend: it is left with the threads that were chosen.
        slots: sequences it has.
        batch_tokens: most tokens of one step.
        candidates: thread counts, the likeliest first; as many are tried as the time allows, and at least one.
        budget: seconds; a step that has begun is ended.
        clock: seconds, monotonic.
    """
    began = clock()
    foreign = _Foreign()
    steps = _Steps(backend, slots, clock)
    threads = _fastest_threads(steps, slots=slots, candidates=candidates, deadline=began + budget * 0.4)
    backend.set_threads(threads)
    steps.forget()
    decode = [size for size in DECODE_SIZES if size < slots] + [slots]
    prefill = [size for size in PREFILL_SIZES if size < batch_tokens] + [min(batch_tokens, 2 * PREFILL_SIZES[-1])]
    for turn in range(ROUNDS):
        for kind, size in [("decode", size) for size in decode] + [("prefill", size) for size in prefill]:
            needed = turn == 0 and size <= PREFILL_SIZES[2]
            if needed or clock() < began + budget:
                steps.time(kind, size)
    backend.keep(0, 0)
    spread = steps.spread()
    return Measurement(
        threads=threads,
        costs=CostModel(decode=steps.costs("decode"), prefill=steps.costs("prefill")),
        doubt=foreign.doubt()
        or (f"the same step took {spread:.1f} times as long as at best" if spread > MAX_SPREAD else None),
        seconds=clock() - began,
    )


def _fastest_threads(steps: "_Steps", *, slots: int, candidates: Sequence[int], deadline: float) -> int:
    times: dict[int, float] = {}
    for turn in range(ROUNDS):
        for threads in candidates:
            if times and steps.clock() >= deadline:
                break
            steps.backend.set_threads(threads)
            if turn == 0:
                steps.time("decode", 1)  # the threads are started
                steps.forget()
            found = steps.once("decode", 1) * steps.once("decode", slots)
            times[threads] = min(times.get(threads, found), found)
    best = min(times.values())
    return min(threads for threads, found in times.items() if found <= best * FEWER_THREADS_WIN**2)


class _Steps:
    """Times steps and remembers the times."""

    def __init__(self, backend: Tunable, slots: int, clock: Callable[[], float]) -> None:
        self.backend = backend
        self.clock = clock
        self._slots = slots
        self._times: dict[tuple[str, int], list[float]] = {}

    def forget(self) -> None:
        self._times.clear()

    def time(self, kind: str, size: int) -> None:
        self._times.setdefault((kind, size), []).append(self.once(kind, size))

    def once(self, kind: str, size: int) -> float:
        if kind == "decode":
            runs = [Run(seq, 0, [1 + seq], outputs=1) for seq in range(size)]
        else:
            runs = [Run(0, 0, range(1, size + 1), outputs=1)]
        began = self.clock()
        self.backend.decode(runs)
        ended = self.clock()
        for run in runs:
            self.backend.keep(run.seq, 0)
        return ended - began

    def costs(self, kind: str) -> tuple[Cost, ...]:
        found = {size: min(times) for (of_kind, size), times in self._times.items() if of_kind == kind}
        return tuple(Cost(tokens=size, milliseconds=max(found[size] * 1000, 1e-6)) for size in sorted(found))

    def spread(self) -> float:
        """Return the median, over the kinds of steps that were timed three times, of median over fastest time."""
        repeated = [times for times in self._times.values() if len(times) >= 3]
        return statistics.median(statistics.median(times) / min(times) for times in repeated) if repeated else 1.0


class _Foreign:
    """How much of the machine's processors others use meanwhile."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._before = self._read()

    def _read(self) -> tuple[float, float, float]:
        total = psutil.cpu_times()
        own = self._process.cpu_times()
        idle = total.idle + getattr(total, "iowait", 0.0)
        # A guest's time is counted in user as well.
        everything = sum(total) - getattr(total, "guest", 0.0) - getattr(total, "guest_nice", 0.0)
        return everything, everything - idle, own.user + own.system

    def doubt(self) -> str | None:
        elapsed, busy, own = (after - before for after, before in zip(self._read(), self._before, strict=True))
        share = max(busy - own, 0.0) / elapsed if elapsed > 0 else 0.0
        if share <= MAX_FOREIGN_SHARE:
            return None
        return f"other programs used {share:.0%} of the machine's {os.cpu_count()} processors"
