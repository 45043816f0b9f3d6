from pathlib import Path

import pytest

from appliance.models import machine
from appliance.models.advice import PROCESS_BYTES, Memory, advise, memory_need
from appliance.models.catalogue import Catalogue, load
from appliance.models.machine import MachineKey, MachineSpeed

CORE_2_DUO = MachineSpeed(
    key=MachineKey(processor="Core 2 Duo", threads=2, memory=8 << 30),
    read_bytes_per_second=5e9,
    read_slowest=5e9,
    multiply_flops=20e9,
)


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return load()


def test_memory_grows_with_context_and_slots(catalogue: Catalogue) -> None:
    model = catalogue.model("smollm2-135m-instruct")
    assert memory_need(model, 1000, 2) == (98_362_432 + PROCESS_BYTES + 23_040 * 2000, True)
    assert memory_need(model, 1_000_000, 1) == (98_362_432 + PROCESS_BYTES + 23_040 * 8192, True)


def test_a_model_whose_architecture_is_unknown(catalogue: Catalogue) -> None:
    need, complete = memory_need(catalogue.model("lfm2.5-2.6b"), 4096, 4)
    assert need == 1_674_455_040 + PROCESS_BYTES
    assert not complete


def test_speed_is_bandwidth_by_bytes(catalogue: Catalogue) -> None:
    memory = Memory(8 << 30, 6 << 30)
    found = advise(catalogue.model("smollm2-135m-instruct"), memory=memory, speed=CORE_2_DUO, context=4096, slots=1)
    assert found.decode == pytest.approx(5e9 / (98_362_432 + 23_040 * 100))
    assert found.prefill == pytest.approx(20e9 / (2 * 134_515_008))


def test_a_mixture_of_experts_reads_a_part_of_itself(catalogue: Catalogue) -> None:
    memory = Memory(64 << 30, 60 << 30)
    big = advise(catalogue.model("gpt-oss-20b"), memory=memory, speed=CORE_2_DUO, context=4096, slots=1)
    small = advise(catalogue.model("phi-4-mini-instruct"), memory=memory, speed=CORE_2_DUO, context=4096, slots=1)
    assert big.decode is not None
    assert small.decode is not None
    assert big.decode > small.decode


@pytest.mark.parametrize(
    ("total", "available", "fit"),
    [(8 << 30, 7 << 30, "fits"), (8 << 30, 1 << 30, "tight"), (1 << 30, 1 << 30, "too-large")],
)
def test_fit(catalogue: Catalogue, total: int, available: int, fit: str) -> None:
    memory = Memory(total, available)
    found = advise(catalogue.model("qwen3-1.7b"), memory=memory, speed=CORE_2_DUO, context=4096, slots=1)
    assert found.fit == fit


def test_the_machine_is_measured_once(tmp_path: Path) -> None:
    first = machine.measured(tmp_path)
    assert first.read_slowest <= first.read_bytes_per_second
    assert machine.measured(tmp_path) == first
    assert [path.name for path in tmp_path.iterdir()] == [machine.CACHE_NAME]


def test_another_machine_is_measured_anew(tmp_path: Path) -> None:
    (tmp_path / machine.CACHE_NAME).write_text(CORE_2_DUO.model_dump_json())
    assert machine.measured(tmp_path).key == machine.machine_key()


def test_a_state_folder_that_is_not_there(tmp_path: Path) -> None:
    assert machine.measured(tmp_path / "nowhere").multiply_flops > 0


@pytest.mark.parametrize("text", ["", "processor : 0\n", "\xff\xfe", "model name\n"])
def test_any_cpuinfo(tmp_path: Path, text: str) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert machine.machine_key(tmp_path).threads >= 1
