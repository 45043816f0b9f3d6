"""Single checks, where a whole machine would say too little."""

import json
import platform
from pathlib import Path
from typing import Any

import pytest

from appliance.experts.llama import devices
from appliance.preflight.checks.clock import check_clock, skew, told_time
from appliance.preflight.checks.disks import check_disks, losses, wear
from appliance.preflight.checks.memory import expert
from appliance.preflight.checks.network import check_network
from appliance.preflight.checks.processor import Processor, count, instructions, read_processor
from appliance.preflight.checks.sleeping import states
from appliance.preflight.checks.storage import check_storage
from appliance.preflight.dump import Dump, number
from appliance.preflight.result import amount, listing
from appliance.preflight.wanted import Wanted, WantedExpert
from tests.unit.preflight.machines import wanted

GIB = 1 << 30
SKYLAKE = "sse4_2 avx f16c fma avx2 bmi2 avx512f avx512cd avx512vl avx512dq avx512bw"


type Records = dict[tuple[str, str], str]


def records(files: dict[str, str], **commands: str) -> Records:
    found = {("file", path): text for path, text in files.items()}
    return found | {("command", name): text for name, text in commands.items()}


def of(files: dict[str, str], **commands: str) -> Dump:
    return Dump(records(files, **commands))


@pytest.mark.parametrize(
    ("flags", "variant"),
    [
        ("sse2 ssse3", "x64"),
        ("sse2 ssse3 sse4_2", "sse42"),
        ("sse4_2 avx", "sandybridge"),
        ("sse4_2 avx f16c", "ivybridge"),
        ("sse4_2 avx f16c fma", "piledriver"),
        ("sse4_2 avx f16c fma avx2 bmi2", "haswell"),
        ("sse4_2 avx f16c fma avx2 bmi2 avx_vnni", "alderlake"),
        ("sse4_2 avx f16c fma avx2 bmi2 avx512f", "haswell"),
        (SKYLAKE, "skylakex"),
        (f"{SKYLAKE} avx512_vnni", "cascadelake"),
        (f"{SKYLAKE} avx512_vnni avx512vbmi avx512_bf16", "zen4"),
    ],
)
def test_llama_cpp_variants(flags: str, variant: str) -> None:
    assert Processor("x86_64", "any", frozenset(flags.split()), 4, 4).variant == variant


def test_the_variant_is_the_one_that_llama_cpp_chooses_here() -> None:
    """llama.cpp's own libraries say how well they fit this processor."""
    best = devices._best_variant()
    if not best:
        pytest.skip("this llama.cpp is built for one processor")
    cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    here = read_processor(of({"/proc/cpuinfo": cpuinfo}, machine=platform.machine()))
    assert best[0].name == f"libggml-cpu-{here.variant}.so"


def test_architectures() -> None:
    assert instructions(Processor("i686", "Pentium", frozenset({"sse2"}), 1, 1)).unfit == (
        "hub", "expert", "voice", "vision"
    )  # fmt: skip
    assert instructions(Processor("aarch64", "A76", frozenset({"asimd", "asimddp"}), 4, 4)).verdict == "ok"
    assert instructions(Processor("aarch64", "A72", frozenset({"asimd"}), 4, 4)).verdict == "warn"
    assert instructions(Processor("x86_64", "any", frozenset(), 4, 4)).verdict == "unknown"


@pytest.mark.parametrize(
    ("text", "found"), [("0-3", 4), ("0", 1), ("0-3,8-11", 8), ("", None), (None, None), ("3-0", 0), ("0-x", None)]
)
def test_lists_of_processors(text: str | None, found: int | None) -> None:
    assert count(text) == found


def test_memory_for_the_experts_of_the_settings() -> None:
    settings: dict[str, Any] = {"experts": {"small": {"model": "LFM2-350M-Q4_K_M.gguf", "context": 4096, "slots": 4}}}
    one = wanted(settings)
    need = one.experts[0].memory
    assert need is not None
    assert need > 229_309_376 + 250 * (1 << 20)
    assert expert(4 * GIB, 3 * GIB, one).verdict == "ok"
    assert expert(4 * GIB, need - 1, one).verdict == "warn"
    assert expert(need, need, one).unfit == ("expert",)
    assert amount(need) in expert(need, need, one).needed


def test_memory_for_an_expert_that_nobody_knows() -> None:
    found = expert(4 * GIB, 3 * GIB, wanted({"experts": {"own": {"model": "my-model.gguf"}}}))
    assert found.verdict == "unknown"
    assert "own" in found.needed


def test_a_model_on_a_graphics_card_takes_no_memory() -> None:
    one = Wanted(experts=(WantedExpert("big", "/x", 100 * GIB, GIB, on_gpu=True),), models_by_memory=(("m", GIB),))
    assert expert(8 * GIB, 7 * GIB, one).verdict == "ok"


def test_disk_for_models_that_are_there_already() -> None:
    first, second = (WantedExpert(name, f"/models/{name}", GIB, size) for name, size in (("a", 3 * GIB), ("b", GIB)))
    one = Wanted(experts=(first, second))
    df = f"Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/sda1 9 9 {3 << 20} 9% /"
    told = records({"/proc/self/mountinfo": "22 1 8:1 / / rw - ext4 /dev/sda1 rw"})
    told |= {("command", "df.state"): df, ("command", "df.models"): df}
    missing = {result.id: result for result in check_storage(Dump(told), one)}
    assert (missing["disk.models"].verdict, missing["disk.models"].unfit) == ("bad", ("expert",))
    told[("command", "file /models/a")] = "-rw-r--r-- 1 0 0 3221225472 Nov 1 10:00 /models/a"
    there = {result.id: result for result in check_storage(Dump(told), one)}
    assert there["disk.models"].verdict == "warn"
    assert there["disk.models"].needed.startswith("2.0 GiB free")
    assert there["disk.file-system"].verdict == "ok"


@pytest.mark.parametrize(
    ("mounted", "verdict"),
    [
        ("22 1 8:1 / / rw - ext4 /dev/sda1 rw", "ok"),
        ("22 1 8:1 / / ro - ext4 /dev/sda1 rw", "ok"),
        ("22 1 8:1 / / rw - ext4 /dev/sda1 ro", "bad"),
        ("22 1 8:1 / / rw shared:1 master:2 - tmpfs tmpfs rw", "warn"),
        ("22 1 8:1 / / rw - vfat /dev/sda1 rw", "warn"),
        ("22 1 8:1 / / rw - vfat /dev/sda1 rw\n30 22 8:2 / / rw - btrfs /dev/sdb rw", "ok"),
        ("", "unknown"),
    ],
)
def test_file_systems(mounted: str, verdict: str) -> None:
    df = "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/sda1 9 9 99999999 9% /"
    told = records({"/proc/self/mountinfo": mounted}) | {("command", "df.state"): df}
    assert {one.id: one.verdict for one in check_storage(Dump(told), Wanted())}["disk.file-system"] == verdict


NVME: dict[str, Any] = {
    "smart_status": {"passed": True},
    "nvme_smart_health_information_log": {"critical_warning": 0, "percentage_used": 3, "media_errors": 0},
}


@pytest.mark.parametrize(
    ("changes", "verdict", "said"),
    [
        ({}, "ok", "SMART passed; 3 % worn"),
        ({"percentage_used": 85}, "warn", "85 % worn"),
        ({"percentage_used": 104}, "bad", "104 % worn"),
        ({"media_errors": 7}, "warn", "7 media errors"),
        ({"critical_warning": 4}, "warn", "critical warning 4"),
    ],
)
def test_nvme(changes: dict[str, int], verdict: str, said: str) -> None:
    log = NVME["nvme_smart_health_information_log"] | changes
    told = json.dumps({**NVME, "nvme_smart_health_information_log": log})
    known = records({"/sys/block/nvme0n1/size": "1000215216"}, user="0") | {("command", "smart nvme0n1"): told}
    (found,) = check_disks(Dump(known), Wanted())
    assert (found.verdict, said in found.found) == (verdict, True), found


def test_a_disk_whose_own_test_failed() -> None:
    told = json.dumps({"smart_status": {"passed": False}})
    known = records({"/sys/block/sda/size": "976773168"}, user="0") | {("command", "smart sda"): told}
    (found,) = check_disks(Dump(known), Wanted())
    assert (found.verdict, "hub" in found.limits) == ("bad", True)


def test_wear_of_ata() -> None:
    table = [{"id": 177, "value": 12, "raw": {"value": 900}}, {"id": 5, "value": 100, "raw": {"value": 0x1_0000_0002}}]
    assert wear({"ata_smart_attributes": {"table": table}}) == 88
    assert losses({"ata_smart_attributes": {"table": table}}) == ["2 reallocated sectors"]


@pytest.mark.parametrize(
    ("life", "end", "verdict"),
    [
        ("0x01 0x02", "0x01", "ok"),
        ("0x09 0x01", "0x01", "warn"),
        ("0x01 0x01", "0x03", "bad"),
        ("0x0b 0x0b", "0x01", "bad"),
    ],
)
def test_emmc(life: str, end: str, verdict: str) -> None:
    folder = "/sys/block/mmcblk0"
    files = {"size": "61079552", "device/type": "MMC", "device/life_time": life, "device/pre_eol_info": end}
    (found,) = check_disks(of({f"{folder}/{name}": text for name, text in files.items()}), Wanted())
    assert found.verdict == verdict, found


@pytest.mark.parametrize(
    ("told", "verdict", "found"),
    [
        (1000.2, "ok", "less than 0.3 s"),
        (1001.8, "ok", "less than 1.8 s"),
        (1010.0, "warn", "10 s ahead, or 0.5 s more"),
        (990.0, "warn", "10 s behind, or 0.5 s more"),
        (0.0, "bad", "1000 s behind, or 0.5 s more"),
    ],
)
def test_the_difference_of_clocks(told: float, verdict: str, found: str) -> None:
    result = skew(told, 1000.0, 1000.5)
    assert (result.verdict, result.found) == (verdict, found)


def test_a_slow_answer_says_little_of_the_clock() -> None:
    assert skew(1003.0, 1000.0, 1006.0).verdict == "unknown"
    assert skew(1100.0, 1000.0, 1006.0).verdict == "bad"


@pytest.mark.parametrize(
    ("told", "verdict"),
    [
        ({"probe": '{"clock": {"status": 8193}}'}, "ok"),
        ({"probe": '{"clock": {"status": 64}}'}, "warn"),
        ({"probe": '{"clock": null}', "processes": "chronyd"}, "unknown"),
        ({"processes": "systemd\nsystemd-timesyn"}, "warn"),
        ({"units": "systemd-timesyncd.service"}, "warn"),
        ({}, "unknown"),
    ],
)
def test_what_sets_the_clock(told: dict[str, str], verdict: str) -> None:
    (result,) = check_clock(of({}, **told), Wanted())
    assert result.verdict == verdict
    (result,) = check_clock(Dump({**records({}, **told), ("fact", "timesync"): "yes"}), Wanted())
    assert result.verdict == "ok"


def test_the_time_as_it_was_told() -> None:
    assert told_time(of({}, date="1795876200.5")) == 1795876200.5
    assert told_time(of({}, date="1795876200.%N")) == 1795876200.0
    for nonsense in ("nan", "inf", "1e400", "", "x", "9" * 60):
        assert told_time(of({}, date=nonsense)) is None


@pytest.mark.parametrize(
    ("state", "mem_sleep", "verdict"),
    [
        ("freeze mem disk", "s2idle [deep]", "ok"),
        ("freeze mem", "[deep]", "ok"),
        ("freeze mem", None, "ok"),
        ("freeze mem disk", "[s2idle] deep", "warn"),
        ("freeze mem", "[s2idle]", "warn"),
        ("freeze", None, "warn"),
        (None, None, "warn"),
    ],
)
def test_sleep_states(state: str | None, mem_sleep: str | None, verdict: str) -> None:
    assert states(state, mem_sleep).verdict == verdict


def test_a_machine_without_a_network() -> None:
    by = {one.id: one for one in check_network(of({}, addresses="1: lo    inet 127.0.0.1/8 scope host lo"), Wanted())}
    assert by["network.link"].unfit == by["network.addresses"].unfit == ("hub", "expert", "voice", "vision")
    assert by["network.gateway"].verdict == "warn"


def test_a_container_has_an_address_and_no_card() -> None:
    said = "2: eth0@if9    inet 10.1.2.3/24 brd 10.1.2.255 scope global eth0\\ valid_lft forever preferred_lft forever"
    by = {one.id: one for one in check_network(of({}, addresses=said), Wanted())}
    assert by["network.link"].found == "no network card; only eth0, which is no card"
    assert by["network.link"].remedy
    assert by["network.addresses"].found == "10.1.2.3 (eth0)"


def test_numbers() -> None:
    assert [number(text) for text in ("12", " 7 ", "-3", "1e3", "9" * 30, "", None, True, 5, "\u0661", 1.5)] == [
        12, 7, -3, None, None, None, None, None, 5, None, None
    ]  # fmt: skip
    assert [amount(value) for value in (0, 1023, 1 << 20, 1536 << 20, 250 * GIB)] == [
        "0 B", "1023 B", "1.0 MiB", "1.5 GiB", "250 GiB"
    ]  # fmt: skip
    assert listing(map(str, range(6))) == "0, 1, 2, 3 and 2 more"
