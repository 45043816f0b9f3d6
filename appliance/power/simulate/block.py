"""Some nodes of a fleet, simulated together: numpy where they are alike, one after another where they decide."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from appliance.power.demand import LocalHour
from appliance.power.policy import Policy, Rules
from appliance.power.simulate.foresight import Foreseen, Wanted, foresee, wanted
from appliance.power.simulate.households import ANSWER_SECONDS, Requests, in_order, invent
from appliance.power.simulate.latency import Waits
from appliance.power.simulate.machine import Life, Machine, Workload
from appliance.power.simulate.recording import Recording
from appliance.power.simulate.scenario import Contender, Scenario, hours_between

type Array = NDArray[np.float64]

BLOCK = 250
"""Nodes that are simulated together at most. Each block has random numbers of its own, so that neither the number of
processes nor the size of the fleet changes what a node does."""
MOST_NODE_DAYS = 50_000
MOST_REQUESTS = 1_000_000
"""Of a block: what bounds the memory where many days are simulated, or long recordings are dealt out."""
WAKE_FACTORS = 64
COPY_SECONDS = 1800.0
"""A recording that is used for a second node is moved by up to so much, back or forth."""


@dataclass(slots=True)
class Tally:
    """What became of some nodes by one policy."""

    nodes: int = 0
    awake: float = 0.0
    """Seconds of all nodes together, as the others."""
    busy: float = 0.0
    """Of `awake`, those in which requests were answered."""
    asleep: float = 0.0
    off: float = 0.0
    moving: float = 0.0
    wakes: dict[str, int] = field(default_factory=lambda: {"request": 0, "alarm": 0, "forecast": 0})
    hits: int = 0
    misses: int = 0
    decisions: int = 0
    waits: Waits = field(default_factory=Waits)

    def take(self, life: Life) -> None:
        """Add a node."""
        self.nodes += 1
        self.awake += life.awake
        self.asleep += life.asleep
        self.off += life.off
        self.moving += life.moving
        for cause, count in life.wakes.items():
            self.wakes[cause] += count
        self.hits += life.hits
        self.misses += life.misses
        self.decisions += life.decisions

    def merge(self, other: "Tally") -> None:
        """Add the nodes of another one."""
        for name in ("nodes", "awake", "busy", "asleep", "off", "moving", "hits", "misses", "decisions"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for cause, count in other.wakes.items():
            self.wakes[cause] += count
        self.waits.merge(other.waits)


def block_size(scenario: Scenario) -> int:
    """Return how many nodes are simulated together; the size of the fleet makes no difference to it."""
    size = min(BLOCK, int(MOST_NODE_DAYS * 86_400 / (scenario.end - scenario.first)))
    if scenario.recording is not None:
        size = min(size, MOST_REQUESTS // max(len(one.times) for one in scenario.recording))
    return max(1, size)


class Simulator:
    """A scenario, ready to simulate any block of it."""

    def __init__(self, scenario: Scenario) -> None:
        """Take the scenario."""
        self._scenario = scenario
        zone = scenario.house_zone
        self._hours: tuple[LocalHour, ...] = hours_between(scenario.first, scenario.end, zone)
        self.policies = tuple(Policy(Rules.of(one.settings, zone)) for one in scenario.contenders)
        """The real ones, in the order of the contenders."""
        self._size = block_size(scenario)

    def run(self, block: int) -> list[Tally]:
        """Simulate a block by all policies, and return what became of it by each."""
        scenario = self._scenario
        nodes = min(self._size, scenario.nodes - block * self._size)
        requests, factors = self._random(block, nodes)
        counted = _between(requests, scenario.start, scenario.end)
        foreseen = None
        if any(one.threshold is not None for one in scenario.contenders):
            foreseen = foresee(requests, self._hours, start=scenario.start)
        return [
            self._by_policy(contender, policy, counted, foreseen, factors)
            for contender, policy in zip(scenario.contenders, self.policies, strict=True)
        ]

    def _random(self, block: int, nodes: int) -> tuple[Requests, Array]:
        """Return the requests and the wakes' durations of a block, always the same for a seed."""
        scenario = self._scenario
        rng = np.random.default_rng([scenario.seed, block])
        factors = np.exp(scenario.spread * rng.standard_normal((self._size, WAKE_FACTORS)))
        if scenario.recording is None:
            requests = invent(rng, nodes=self._size, profile=scenario.profile, hours=self._hours)
            requests = _first_nodes(requests, nodes)
        else:
            first = block * self._size
            requests = replay(rng, scenario.recording, range(first, first + nodes))
            requests = _between(requests, scenario.first, scenario.end)
        return requests, factors

    def _by_policy(
        self, contender: Contender, policy: Policy, requests: Requests, foreseen: Foreseen | None, factors: Array
    ) -> Tally:
        scenario = self._scenario
        late = None
        if contender.threshold is not None and foreseen is not None:
            late = wanted(foreseen, contender.threshold, ahead=scenario.ahead)
        tally, begun = Tally(), requests.times.copy()
        for first, work in workloads(requests, policy.least_idle, late, factors):
            life = Machine(policy, work, start=scenario.start, end=scenario.end).run()
            tally.take(life)
            for one, behind, ready in life.waits:
                begun[first + one : first + behind] = ready
        waits = begun - requests.times
        tally.waits.add(waits[waits > 0], requests=len(waits))
        tally.busy = busy_seconds(requests, begun, scenario.end)
        return tally


def workloads(
    requests: Requests, least_idle: float, late: Wanted | None, factors: Array
) -> Sequence[tuple[int, Workload]]:
    """Return each node's requests, with the place of its first one, cut into conversations by the idle time."""
    ends = last_ends(requests, requests.times)
    border = np.searchsorted(requests.node, np.arange(requests.nodes + 1))
    if len(ends):
        quiet = (requests.times[1:] - ends[:-1] > least_idle) | (requests.node[1:] != requests.node[:-1])
        starts = np.concatenate(([0], np.nonzero(quiet)[0] + 1))
        stops = np.concatenate((starts[1:], [len(ends)]))
    else:
        starts = stops = np.zeros(0, dtype=np.intp)
    begins, until = requests.times[starts], ends[stops - 1] if len(stops) else ends
    run_border = np.searchsorted(starts, border)
    times, seconds = requests.times, requests.seconds
    spans: list[list[tuple[float, float]]] = [[] for _ in range(requests.nodes)]
    if late is not None:
        for node, begin, end in zip(late.node.tolist(), late.begin.tolist(), late.end.tolist(), strict=True):
            spans[node].append((begin, end))
    found = []
    for node in range(requests.nodes):
        low, high = border[node], border[node + 1]
        run_low, run_high = run_border[node], run_border[node + 1]
        work = Workload(
            times=times[low:high].tolist(),
            seconds=seconds[low:high].tolist(),
            begins=begins[run_low:run_high].tolist(),
            ends=until[run_low:run_high].tolist(),
            wanted=spans[node],
            wake_factors=factors[node].tolist(),
        )
        found.append((int(low), work))
    return found


def last_ends(requests: Requests, begun: Array) -> Array:
    """Return when the last answer ends that was begun until each request, node by node."""
    if not len(begun):
        return begun
    first = begun.min()
    width = float((begun + requests.seconds).max() - first) + 1.0
    shifted = begun - first + requests.seconds + requests.node * width
    ends: Array = np.maximum.accumulate(shifted) - requests.node * width + first
    return ends


def busy_seconds(requests: Requests, begun: Array, end: float) -> float:
    """Return for how long answers were given, counting once what overlaps, until the end."""
    if not len(begun):
        return 0.0
    ends = np.minimum(last_ends(requests, begun), end)
    same = requests.node[1:] == requests.node[:-1]
    before = np.concatenate(([-np.inf], np.where(same, ends[:-1], -np.inf)))
    return float(np.maximum(0.0, ends - np.maximum(np.minimum(begun, end), before)).sum())


def replay(rng: np.random.Generator, recording: Recording, nodes: range) -> Requests:
    """Return the recorded requests for some nodes of a fleet, which take the recorded experts in turn."""
    pieces = []
    for place, node in enumerate(nodes):
        recorded = recording[node % len(recording)]
        moved = rng.uniform(-COPY_SECONDS, COPY_SECONDS)
        times = recorded.times + (moved if node >= len(recording) else 0.0)
        drawn = rng.exponential(ANSWER_SECONDS, size=len(times))
        seconds = np.where(np.isnan(recorded.seconds), drawn, recorded.seconds)
        pieces.append((np.full(len(times), place), times, seconds))
    node_column, times, seconds = (np.concatenate(column) for column in zip(*pieces, strict=True))
    return in_order(node_column, times, seconds, len(nodes))


def _first_nodes(requests: Requests, nodes: int) -> Requests:
    kept = requests.node < nodes
    return Requests(requests.times[kept], requests.seconds[kept], requests.node[kept], nodes)


def _between(requests: Requests, start: float, end: float) -> Requests:
    kept = (requests.times >= start) & (requests.times < end)
    return Requests(requests.times[kept], requests.seconds[kept], requests.node[kept], requests.nodes)
