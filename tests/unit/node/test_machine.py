"""What a node says of its machine."""

from pathlib import Path

import psutil
import pytest

from appliance.bus.messages import Hardware, NodeTelemetry
from appliance.node.hardware import read_hardware, read_macs
from appliance.node.identity import node_name
from appliance.node.supervised import ExpertLoad
from appliance.node.telemetry import read_telemetry
from appliance.settings.model import NodeSettings


def test_this_machines_hardware_is_sane() -> None:
    hardware = read_hardware()
    assert Hardware.model_validate_json(hardware.model_dump_json()) == hardware
    assert 1 <= hardware.cores <= (psutil.cpu_count() or 1)
    assert hardware.memory_bytes > 1 << 28
    assert hardware.cpu


def test_a_cpu_and_a_graphics_card_are_read_from_the_kernels_files(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Intel(R) Core(TM)2 Duo CPU E8400 @ 3.00GHz\n")
    for name, kind in (("0000:01:00.0", "0x030000"), ("0000:02:00.0", "0x020000")):
        device = tmp_path / "bus/pci/devices" / name
        device.mkdir(parents=True)
        for file, text in (("class", kind), ("vendor", "0x10de"), ("device", "0x1b06")):
            (device / file).write_text(text + "\n")
    hardware = read_hardware(tmp_path, tmp_path)
    assert hardware.cpu == "Intel(R) Core(TM)2 Duo CPU E8400 @ 3.00GHz"
    assert hardware.gpus == ("10de:1b06",)


def test_a_machine_without_these_files_is_described_all_the_same(tmp_path: Path) -> None:
    hardware = read_hardware(tmp_path, tmp_path)
    assert hardware.cpu == hardware.architecture
    assert hardware.gpus == ()
    assert read_macs(tmp_path) == ()


def test_telemetry_is_sane_even_where_the_models_folder_is_not_there_yet(tmp_path: Path) -> None:
    load = ExpertLoad(active=1, queued=2, generated_tokens=3) + ExpertLoad(active=1)
    telemetry = read_telemetry(tmp_path / "not" / "yet", load)
    assert NodeTelemetry.model_validate_json(telemetry.model_dump_json()) == telemetry
    assert (telemetry.active_requests, telemetry.queued_requests, telemetry.generated_tokens) == (2, 2, 3)
    assert telemetry.uptime > 0
    assert 0 < telemetry.memory < 1


@pytest.mark.parametrize(
    ("host", "name"),
    [("attic", "attic"), ("Büro-PC.lan", "b-ro-pc"), ("--", "node"), ("a" * 80, "a" * 63), ("DESKTOP_7", "desktop_7")],
)
def test_any_host_name_gives_a_name_for_the_bus(host: str, name: str) -> None:
    assert node_name(NodeSettings(), host) == name


def test_a_set_name_wins() -> None:
    assert node_name(NodeSettings(name="cellar"), "attic") == "cellar"
