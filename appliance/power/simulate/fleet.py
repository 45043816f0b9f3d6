"""All blocks of a scenario, on several processes; their number changes nothing but the time it takes."""

import multiprocessing
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import resource_tracker

from appliance.power.simulate.block import Simulator, Tally, block_size
from appliance.power.simulate.errors import SimulationError
from appliance.power.simulate.scenario import Contender, Scenario

SAMPLE_NODES = 500
"""Nodes of a fleet that more policies than the asked ones are tried on, for the chart."""
IN_FLIGHT = 4
"""Blocks that each process has waiting."""

_simulator: Simulator | None = None


def simulate(scenario: Scenario, *, processes: int, done: Callable[[int], None] = lambda _: None) -> list[Tally]:
    """Return what became of the fleet by each contender, in their order; `done` is told of nodes that are finished."""
    size = block_size(scenario)
    blocks = -(-scenario.nodes // size)
    tallies = [Tally() for _ in scenario.contenders]
    parts = _here(scenario, blocks) if processes == 1 or blocks == 1 else _apart(scenario, blocks, processes)
    waiting: dict[int, list[Tally]] = {}
    following = 0
    for block, found in parts:
        waiting[block] = found
        while following in waiting:  # sums of floating-point numbers depend on their order
            for tally, part in zip(tallies, waiting.pop(following), strict=True):
                tally.merge(part)
            done(min(size, scenario.nodes - following * size))
            following += 1
    return tallies


def sample(scenario: Scenario, contenders: tuple[Contender, ...]) -> Scenario:
    """Return the first nodes of a fleet, with other contenders."""
    return replace(scenario, nodes=min(scenario.nodes, SAMPLE_NODES), contenders=contenders)


def _here(scenario: Scenario, blocks: int) -> Iterator[tuple[int, list[Tally]]]:
    simulator = Simulator(scenario)
    for block in range(blocks):
        yield block, simulator.run(block)


def _apart(scenario: Scenario, blocks: int, processes: int) -> Iterator[tuple[int, list[Tally]]]:
    resource_tracker.ensure_running()  # or it would be started with the others, and let interrupts in again
    pool = ProcessPoolExecutor(
        min(processes, blocks), multiprocessing.get_context("spawn"), initializer=_begin, initargs=(scenario,)
    )
    try:
        pending: dict[Future[list[Tally]], int] = {}
        following = 0
        while following < blocks or pending:
            while following < blocks and len(pending) < processes * IN_FLIGHT:
                with _without_interrupts():
                    pending[pool.submit(_run, following)] = following
                following += 1
            finished, _ = wait(pending, return_when=FIRST_COMPLETED)
            for future in finished:
                yield pending.pop(future), future.result()
    except BrokenProcessPool as error:
        raise SimulationError(
            "a process of the simulation was ended, most likely for want of memory; try fewer --processes"
        ) from error
    except BaseException:
        for child in multiprocessing.active_children():
            child.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Start processes that Ctrl-C, which the terminal sends to them too, does not reach; this one ends them.

    They inherit the mask. It is not enough here: a library's thread may take the signal, and Python would interrupt
    this one all the same, with half a process started.
    """
    interrupts: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, _frame: interrupts.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler)
    if interrupts:
        raise KeyboardInterrupt


def _begin(scenario: Scenario) -> None:
    global _simulator  # noqa: PLW0603 - one process simulates one scenario
    _simulator = Simulator(scenario)


def _run(block: int) -> list[Tally]:
    if _simulator is None:
        raise RuntimeError("the process has no scenario")
    return _simulator.run(block)
