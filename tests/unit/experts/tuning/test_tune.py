"""Tuning of a backend: known, measured, doubted, or not wanted."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from appliance.experts.backend import Run
from appliance.experts.server import llama_backend
from appliance.experts.settings import EngineSettings
from appliance.experts.tuning import tune as tuning
from appliance.experts.tuning.costs import Cost, CostModel
from appliance.experts.tuning.machine import usable_cores
from appliance.experts.tuning.measure import Measurement
from appliance.experts.tuning.store import TuningStore
from appliance.experts.tuning.tune import describe, tune

SETTINGS = EngineSettings(context_tokens=256, slots=2, batch_tokens=32)
COSTS = CostModel(decode=(Cost(tokens=1, milliseconds=8),), prefill=(Cost(tokens=8, milliseconds=40),))


class Backend:
    """Takes what it is told."""

    def __init__(self) -> None:
        self.threads = 0
        self.costs: CostModel | None = None

    def decode(self, runs: Sequence[Run]) -> None:
        raise AssertionError(runs)

    def keep(self, seq: int, tokens: int) -> int:
        raise AssertionError((seq, tokens))

    def set_threads(self, threads: int) -> None:
        self.threads = threads


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF")
    return path


@pytest.fixture
def store(tmp_path: Path) -> TuningStore:
    return TuningStore(tmp_path / "tuning")


def measuring(monkeypatch: pytest.MonkeyPatch, doubt: str | None) -> list[int]:
    """Replace the benchmark by its result; return what is counted up with each run."""
    runs: list[int] = []

    def measured(_backend: object, *, slots: int, batch_tokens: int, candidates: Sequence[int]) -> Measurement:
        assert (slots, batch_tokens) == (2, 32)
        assert candidates[0] == usable_cores()
        runs.append(1)
        return Measurement(threads=7, costs=COSTS, doubt=doubt, seconds=1.0)

    monkeypatch.setattr(tuning, "measure", measured)
    return runs


def test_it_is_measured_once(file: Path, store: TuningStore, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = measuring(monkeypatch, doubt=None)
    for seconds in (1.0, None):
        backend = Backend()
        tuned = tune(backend, model=file, settings=SETTINGS, store=store)
        assert (backend.threads, backend.costs, tuned.measured_seconds) == (7, COSTS, seconds)
    assert len(runs) == 1
    tune(Backend(), model=file, settings=SETTINGS, store=store, anew=True)
    assert len(runs) == 2
    file.write_bytes(b"GGUF, but another")
    tune(Backend(), model=file, settings=SETTINGS, store=store)
    assert len(runs) == 3


def test_a_damaged_result_is_measured_again(file: Path, store: TuningStore, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = measuring(monkeypatch, doubt=None)
    tune(Backend(), model=file, settings=SETTINGS, store=store)
    path = store.path(describe(file, SETTINGS))
    path.write_text(path.read_text()[:-40])
    tune(Backend(), model=file, settings=SETTINGS, store=store)
    assert len(runs) == 2
    assert store.load(describe(file, SETTINGS)) is not None


def test_a_doubtful_result_is_not_kept(
    file: Path, store: TuningStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    runs = measuring(monkeypatch, doubt="other programs used 80% of the machine's 2 processors")
    for _ in range(2):
        backend = Backend()
        assert tune(backend, model=file, settings=SETTINGS, store=store).doubt is not None
        assert (backend.threads, backend.costs) == (usable_cores(), COSTS)
    assert len(runs) == 2
    assert "not kept: other programs used 80%" in caplog.text


@pytest.mark.model
def test_a_real_model_is_measured_unless_the_threads_are_set(model: Path, tmp_path: Path) -> None:
    backend = llama_backend(model, SETTINGS.model_copy(update={"threads": 1}), tmp_path)()
    try:
        assert not list(tmp_path.iterdir())
        assert getattr(backend, "costs", None) is None
    finally:
        backend.close()
    backend = llama_backend(model, SETTINGS, tmp_path)()
    try:
        costs = getattr(backend, "costs", None)
        assert isinstance(costs, CostModel)
        assert [cost.tokens for cost in costs.decode] == [1, 2]
        assert costs.decode_ms(2) > 0
        assert 1 <= costs.prefill_chunk(1, limit=32) <= 32
        # The cells are empty again: a prompt starts at the beginning.
        backend.decode([Run(0, 0, [1, 2, 3], outputs=1), Run(1, 0, [1], outputs=1)])
    finally:
        backend.close()
