"""Measurements that are kept, and files that are not believed."""

import json
import random
from pathlib import Path

import pytest

from appliance.experts.tuning.costs import Cost, CostModel
from appliance.experts.tuning.store import MAX_FILE_BYTES, Subject, TuningStore

SUBJECT = Subject(
    processor="Old Faithful",
    microcode="0x7",
    physical_cores=2,
    logical_cores=4,
    backend="haswell AVX2",
    llama_cpp="0.3.36",
    model="0" * 32,
    slots=8,
    batch_tokens=256,
)
COSTS = CostModel(decode=(Cost(tokens=1, milliseconds=8),), prefill=(Cost(tokens=8, milliseconds=40),))


@pytest.fixture
def store(tmp_path: Path) -> TuningStore:
    store = TuningStore(tmp_path / "tuning")
    store.keep(SUBJECT, threads=2, costs=COSTS)
    return store


def test_what_was_kept_is_found_by_its_subject_alone(store: TuningStore) -> None:
    found = store.load(SUBJECT)
    assert found is not None
    assert (found.threads, found.costs) == (2, COSTS)
    for change in ({"microcode": "0x8"}, {"model": "1" * 32}, {"slots": 4}, {"backend": "zen4"}, {"llama_cpp": "1"}):
        assert store.load(SUBJECT.model_copy(update=change)) is None
    assert [path.name for path in store.path(SUBJECT).parent.iterdir()] == [f"{SUBJECT.key}.json"]


def test_a_file_of_another_subject_is_refused(store: TuningStore, caplog: pytest.LogCaptureFixture) -> None:
    other = SUBJECT.model_copy(update={"processor": "Other"})
    store.path(other).write_bytes(store.path(SUBJECT).read_bytes())
    assert store.load(other) is None
    assert "another machine or model" in caplog.text


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "\x00" * 10, '{"version": 2}', "[" * 50_000, " " * (MAX_FILE_BYTES + 1)]
)
def test_a_damaged_file_is_refused(store: TuningStore, text: str, caplog: pytest.LogCaptureFixture) -> None:
    store.path(SUBJECT).write_text(text)
    assert store.load(SUBJECT) is None
    assert "measuring again" in caplog.text


@pytest.mark.parametrize("change", [{"threads": 0}, {"threads": "2; rm"}, {"version": 2}, {"extra": 1}, {"costs": {}}])
def test_values_that_no_measurement_has_are_refused(store: TuningStore, change: dict[str, object]) -> None:
    content = json.loads(store.path(SUBJECT).read_text())
    store.path(SUBJECT).write_text(json.dumps(content | change))
    assert store.load(SUBJECT) is None


def test_any_damage_is_refused_or_harmless(store: TuningStore) -> None:
    path = store.path(SUBJECT)
    intact = path.read_bytes()
    chance = random.Random(3)
    for _ in range(500):
        damaged = bytearray(intact)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(bytes(damaged))
        found = store.load(SUBJECT)
        if found is not None:
            assert found.subject == SUBJECT
            assert 1 <= found.threads <= 1024
            assert 1 <= found.costs.prefill_chunk(8, limit=256) <= 256


def test_a_folder_that_can_not_be_written_is_only_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    store = TuningStore(tmp_path / "file")
    store.keep(SUBJECT, threads=2, costs=COSTS)
    assert "can't be written" in caplog.text
    assert store.load(SUBJECT) is None
