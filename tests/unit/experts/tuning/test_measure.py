"""The self-benchmark on a machine whose speed is known."""

from collections.abc import Sequence

import pytest

from appliance.experts.backend import Run
from appliance.experts.tuning import measure as measuring
from appliance.experts.tuning.measure import measure, thread_candidates


class Machine:
    """A backend and a clock: steps take what `speedup` says, and nothing else takes time."""

    def __init__(self, speedup: dict[int, float], *, disturbed: Sequence[float] = (1.0,)) -> None:
        self.speedup = speedup
        self.disturbed = disturbed
        self.threads = 1
        self.now = 0.0
        self.cells: dict[int, int] = {}
        self.steps = 0
        self.tried: set[int] = set()

    def decode(self, runs: Sequence[Run]) -> None:
        tokens = sum(len(run.tokens) for run in runs)
        for run in runs:
            assert run.position == self.cells.get(run.seq, 0)
            self.cells[run.seq] = run.position + len(run.tokens)
        self.now += (
            (0.004 + 0.004 * tokens) / self.speedup[self.threads] * self.disturbed[self.steps % len(self.disturbed)]
        )
        self.steps += 1
        self.tried.add(self.threads)

    def keep(self, seq: int, tokens: int) -> int:
        self.cells[seq] = tokens
        return tokens

    def set_threads(self, threads: int) -> None:
        self.threads = threads

    def clock(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring._Foreign, "doubt", lambda _self: None)


@pytest.mark.parametrize(
    ("speedup", "expected"),
    [({1: 1, 2: 1.9, 4: 3.5, 8: 3.0}, 4), ({1: 1, 2: 1.9, 4: 1.92, 8: 1.0}, 2), ({1: 1, 2: 0.5, 4: 0.2, 8: 0.1}, 1)],
)
def test_the_fewest_of_the_fastest_threads_are_chosen(speedup: dict[int, float], expected: int) -> None:
    machine = Machine(speedup)
    found = measure(machine, slots=8, batch_tokens=256, candidates=thread_candidates(4, 8), clock=machine.clock)
    assert found.threads == machine.threads == expected
    assert machine.tried == {1, 2, 4, 8}
    assert found.doubt is None
    assert found.costs.decode_ms(8) == pytest.approx(36 / speedup[expected])
    assert found.costs.step_ms(0, 128) == pytest.approx(516 / speedup[expected])
    assert not any(machine.cells.values())


def test_a_slow_model_is_measured_with_few_steps() -> None:
    machine = Machine({1: 0.01, 2: 0.02})
    found = measure(machine, slots=4, batch_tokens=256, candidates=(2, 1), budget=4, clock=machine.clock)
    assert found.threads == 2
    assert found.costs.decode_ms(1) == pytest.approx(400)
    assert machine.steps < 12


def test_a_single_slot_and_the_smallest_batch_are_measured() -> None:
    machine = Machine({1: 1.0})
    found = measure(machine, slots=1, batch_tokens=1, candidates=(1,), clock=machine.clock)
    assert [cost.tokens for cost in found.costs.decode] == [1]
    assert [cost.tokens for cost in found.costs.prefill] == [1]


def test_steps_that_vary_are_doubted_but_their_best_times_count() -> None:
    machine = Machine({1: 1.0}, disturbed=(1.0, 2.0, 3.0, 2.5, 4.0, 1.9, 2.2))
    found = measure(machine, slots=2, batch_tokens=16, candidates=(1,), budget=60, clock=machine.clock)
    assert found.doubt is not None
    assert "times as long" in found.doubt


def test_the_candidates_begin_with_what_is_likely() -> None:
    assert thread_candidates(1, 1) == (1,)
    assert thread_candidates(2, 2) == (2, 1)
    assert thread_candidates(6, 12) == (6, 12, 3, 1)
    assert thread_candidates(8, 16) == (8, 16, 4, 2, 1)
