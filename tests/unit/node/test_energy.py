"""Power meters, on folders that look like the kernel's and programs that answer like ipmitool."""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
from prometheus_client import CollectorRegistry

from appliance.bus.client import Bus
from appliance.bus.connection import Connection
from appliance.bus.power_messages import PlugReading
from appliance.node.clock import Clock
from appliance.node.energy.estimate import Estimate
from appliance.node.energy.ipmi import Ipmi
from appliance.node.energy.meter import MeterError, MeterUnavailableError, Reading
from appliance.node.energy.monitor import EnergyMetrics, EnergyMonitor, EnergyOptions, EnergyState
from appliance.node.energy.plug import Plug
from appliance.node.energy.rapl import Rapl

RANGE = 262_143_328_850


class Time(Clock):
    """Clocks that a test sets."""

    now = 1000.0
    asleep = 0.0

    def monotonic(self) -> float:
        return self.now

    def boottime(self) -> float:
        return self.now + self.asleep


def zone(folder: Path, path: str, name: str, energy: int, *, largest: int = RANGE) -> Path:
    made = folder / path
    made.mkdir(parents=True, exist_ok=True)
    (made / "name").write_text(name + "\n")
    (made / "energy_uj").write_text(f"{energy}\n")
    (made / "max_energy_range_uj").write_text(f"{largest}\n")
    return made / "energy_uj"


async def test_rapl_is_the_sum_of_packages_and_their_memory(tmp_path: Path) -> None:
    time = Time()
    package = zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    core = zone(tmp_path, "intel-rapl:0:0", "core", 500_000)
    memory = zone(tmp_path, "intel-rapl:0:1", "dram", 7_000_000)
    meter = Rapl(tmp_path, time.monotonic)
    with pytest.raises(MeterError, match="two readings"):
        await meter.read()
    time.now += 10
    package.write_text("201000000")
    core.write_text("150000000")
    memory.write_text("37000000")
    assert await meter.read() == Reading("rapl", 23.0)


async def test_the_whole_platform_is_preferred_where_the_processor_measures_it(tmp_path: Path) -> None:
    time = Time()
    zone(tmp_path, "intel-rapl:0", "package-0", 0)
    platform = zone(tmp_path, "intel-rapl:1", "psys", 0)
    meter = Rapl(tmp_path, time.monotonic)
    with pytest.raises(MeterError):
        await meter.read()
    time.now += 4
    platform.write_text("40000000")
    assert (await meter.read()).watts == 10.0


async def test_a_counter_that_wraps_around_is_no_negative_power(tmp_path: Path) -> None:
    time = Time()
    package = zone(tmp_path, "intel-rapl:0", "package-0", RANGE - 4_999_999)
    meter = Rapl(tmp_path, time.monotonic)
    with pytest.raises(MeterError):
        await meter.read()
    time.now += 1
    package.write_text("5000000")
    assert (await meter.read()).watts == pytest.approx(10.0)


async def test_a_counter_that_begins_anew_gives_no_reading(tmp_path: Path) -> None:
    time = Time()
    package = zone(tmp_path, "intel-rapl:0", "package-0", 200_000_000_000)
    meter = Rapl(tmp_path, time.monotonic)
    with pytest.raises(MeterError):
        await meter.read()
    time.now += 1
    package.write_text("10")
    with pytest.raises(MeterError, match="began anew"):
        await meter.read()
    meter.forget()
    time.now += 1
    with pytest.raises(MeterError, match="two readings"):
        await meter.read()


async def test_a_counter_for_root_alone_is_said_clearly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = zone(tmp_path, "intel-rapl:0", "package-0", 0)
    read = Path.read_text

    def denied(path: Path, *args: str, **more: str) -> str:
        if path == secret:
            raise PermissionError(13, "Permission denied", str(path))
        return read(path, *args, **more)

    monkeypatch.setattr(Path, "read_text", denied)  # the tests may run as root, who may read everything
    with pytest.raises(MeterUnavailableError, match=f"only root may read {secret}"):
        await Rapl(tmp_path).read()


@pytest.mark.parametrize("content", ["", "nonsense", "-"])
async def test_nonsense_of_the_kernels_is_no_reading(tmp_path: Path, content: str) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 0).write_text(content)
    with pytest.raises(MeterError):
        await Rapl(tmp_path).read()
    with pytest.raises(MeterUnavailableError, match="no RAPL"):
        await Rapl(tmp_path / "nowhere").read()


@pytest.fixture
def ipmitool(tmp_path: Path) -> Callable[[str], tuple[str, ...]]:
    def made(script: str) -> tuple[str, ...]:
        program = tmp_path / "ipmitool"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        return (str(program), "dcmi", "power", "reading")

    return made


ANSWER = """cat <<END

    Instantaneous power reading:                   112 Watts
    Minimum during sampling period:                 87 Watts
    Maximum during sampling period:                214 Watts
    Average power reading over sample period:      109 Watts
    IPMI timestamp:                           Mon Nov 23 10:00:00 2026
    Sampling period:                          00000001 Seconds.
    Power reading state is:                   activated
END"""


async def test_the_management_controller_is_asked(tmp_path: Path, ipmitool: Callable[[str], tuple[str, ...]]) -> None:
    assert await Ipmi(tmp_path / "hwmon", ipmitool(ANSWER)).read() == Reading("ipmi", 112.0)


async def test_the_kernels_own_power_meter_comes_first(
    tmp_path: Path, ipmitool: Callable[[str], tuple[str, ...]]
) -> None:
    for number, name, value in ((0, "coretemp", "1"), (1, "power_meter", "95500000")):
        sensor = tmp_path / f"hwmon{number}"
        sensor.mkdir()
        (sensor / "name").write_text(name + "\n")
        (sensor / "power1_average").write_text(value + "\n")
    assert await Ipmi(tmp_path, ipmitool(ANSWER)).read() == Reading("ipmi", 95.5)


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("exit 1", MeterUnavailableError),
        ("echo 'Instantaneous power reading: 99999999999 Watts'", MeterUnavailableError),
        ("echo 'Instantaneous power reading: 999999 Watts'", MeterError),
        ("head -c 200000 /dev/zero", MeterUnavailableError),
    ],
)
async def test_an_answer_that_makes_no_sense_is_no_reading(
    tmp_path: Path, ipmitool: Callable[[str], tuple[str, ...]], script: str, error: type[MeterError]
) -> None:
    with pytest.raises(error):
        await Ipmi(tmp_path / "hwmon", ipmitool(script)).read()


async def test_a_controller_that_hangs_is_given_up_and_leaves_no_process(
    tmp_path: Path, ipmitool: Callable[[str], tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("appliance.node.energy.ipmi.IPMI_SECONDS", 0.3)
    number = tmp_path / "pid"
    with pytest.raises(MeterError, match="did not answer"):
        await Ipmi(tmp_path / "hwmon", ipmitool(f"echo $$ > {number}; exec sleep 60")).read()
    with pytest.raises(ProcessLookupError):
        os.kill(int(number.read_text()), 0)


async def test_without_ipmitool_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(MeterUnavailableError, match="ipmitool is not installed"):
        await Ipmi(tmp_path, ("no-such-ipmitool",)).read()


async def test_a_plug_that_is_silent_is_no_reading() -> None:
    time = Time()
    plug = Plug(time.monotonic)
    with pytest.raises(MeterError):
        await plug.read()
    await plug.take(PlugReading(watts=42.5), {})
    assert await plug.read() == Reading("plug", 42.5)
    time.now += 301
    with pytest.raises(MeterError):
        await plug.read()


@pytest.mark.parametrize(("cpu", "watts"), [(0.0, 20.0), (0.5, 50.0), (1.0, 80.0), (7.0, 80.0)])
async def test_an_estimate_lies_between_idle_and_busy(cpu: float, watts: float) -> None:
    assert await Estimate(idle_watts=20, busy_watts=80, cpu=lambda: cpu).read() == Reading("estimate", watts)


class Account:
    """What was added."""

    def __init__(self) -> None:
        self.added: list[tuple[float, float, EnergyState]] = []
        self.whole: list[bool] = []
        self.baseline: Literal["measured", "settings"] = "settings"
        self.used_kwh, self.saved_kwh, self.since = 1.5, 0.5, 1_700_000_000.0

    def add(self, watts: float, seconds: float, state: EnergyState, *, whole: bool = False) -> None:
        self.added.append((watts, seconds, state))
        self.whole.append(whole)


async def test_the_account_gets_time_awake_and_asleep_and_the_bus_a_message(tmp_path: Path) -> None:
    time, account, registry = Time(), Account(), CollectorRegistry()
    bus = Bus(Connection("127.0.0.1", 9, "rouse", ""), identifier="node")
    busy = False
    monitor = EnergyMonitor(
        node="attic",
        bus=bus,
        meters=[Rapl(tmp_path), Estimate(idle_watts=20, busy_watts=80, cpu=lambda: 0.5)],
        account=account,
        clock=time,
        metrics=EnergyMetrics(registry),
        options=EnergyOptions(asleep_watts=3.0),
        busy=lambda: busy,
    )
    time.now += 30
    await monitor.measure()
    busy, time.now, time.asleep = True, time.now + 10, 3600
    await monitor.measure()
    assert account.added == [(50, 30, "idle"), (3, 3600, "asleep"), (50, 10, "busy")]
    assert account.whole == [False] * 3
    (payload, _), *_ = (kept for name, kept in bus._kept.items() if name == "rouse/v1/nodes/attic/energy")
    assert b'"source":"estimate"' in payload
    assert registry.get_sample_value("rouse_node_power_watts", {"source": "estimate"}) == 50
