"""Whole machines, composed as the kernel would describe them; see machines/README.md."""

import json

import pytest
from rich.console import Console

from appliance.cli.preflight_table import print_outcome
from appliance.preflight.dump import parse
from appliance.preflight.report import report_on, without_root
from tests.unit.preflight.machines import NAMES, TOKEN, content, fitness, report, results, wanted

EXPERT = {"node": {"roles": ["expert"]}, "broker": {"url": "mqtt://hub.lan"}}


def test_a_core_2_duo_makes_a_hub_and_a_slow_expert() -> None:
    found = report("core2duo")
    by = results(found)
    assert fitness(found) == {"hub": "fit", "expert": "limited", "voice": "limited", "vision": "unfit"}
    assert "llama.cpp runs as x64" in by["processor.instructions"].found
    assert by["processor.cores"].found == "2 cores"
    assert by["memory.expert"].found.startswith("7.7 GiB, 6.9 GiB of it free; the largest model that fits is ")
    disk = by["disk.health.sda"]
    assert (disk.verdict, disk.found) == (
        "warn", "WDC WD5000AAKS-7, 466 GiB, hard disk; SMART passed; 3 pending sectors"
    )  # fmt: skip
    assert (by["wake.magic-packet"].verdict, by["wake.magic-packet"].found) == ("ok", "enp0s25 armed")
    assert by["sleep.states"].verdict == by["wake.alarm"].verdict == by["clock.synchronised"].verdict == "ok"
    assert by["system.firmware"].found.startswith("BIOS")
    assert by["network.addresses"].found == "192.168.1.21 (enp0s25)"
    assert by["network.gateway"].found == "192.168.1.1 (enp0s25)"
    assert by["ports"].verdict == "ok"
    assert without_root(found.results) == ()


def test_a_raspberry_pi_on_wifi() -> None:
    found = report("raspberry-pi", roles=("hub",))
    by = results(found)
    assert fitness(found)["hub"] == "limited"
    assert not found.unfit
    assert by["processor.instructions"].found.startswith("Raspberry Pi 4 Model B Rev 1.4, aarch64: NEON")
    assert "processor.vision" not in by
    assert (by["network.wifi.wlan0"].verdict, by["network.wifi.wlan0"].found) == ("warn", "-74 dBm")
    assert by["network.ipv6"].found == "yes"
    assert by["disk.health.mmcblk0"].found.endswith("29.7 GiB, SD card; health: cards tell none")
    assert by["heat.throttling"].found == "too little voltage"
    assert by["sleep.states"].verdict == by["wake.alarm"].verdict == "warn"
    assert by["wake.magic-packet"].found == "eth0 disarmed, without a cable"


def test_a_tower_with_a_graphics_card_asked_without_root() -> None:
    experts = {"big": {"model": "gpt-oss-20b-mxfp4.gguf", "gpu_layers": -1}}
    found = report("gpu-tower", {**EXPERT, "experts": experts}, roles=("expert",))
    by = results(found)
    assert by["processor.instructions"].found.endswith("llama.cpp runs as zen4")
    assert by["processor.cores"].found == "12 cores, 24 threads"
    assert by["gpu"].verdict == "ok"
    assert "NVIDIA GeForce RTX 3060, 12288 MiB" in by["gpu"].found
    assert by["network.broker"].found == "hub.lan:1883 answers in 0.4 ms"
    assert by["network.link"].found == "enp6s0 2500 Mbit/s, wlp5s0 off"
    assert by["system.firmware"].found == "UEFI with Secure Boot"
    assert by["wake.magic-packet"].found == "enp6s0 disarmed"
    assert "ethtool -s enp6s0 wol g" in by["wake.magic-packet"].remedy
    assert by["sleep.states"].found == "S3 is there, not chosen ([s2idle] deep)"
    assert by["system.kvm"].found == "there; this user may not use it"
    assert without_root(found.shown) == ("Disk nvme0n1",)
    assert (fitness(found)["expert"], found.unfit) == ("limited", ())


def test_ports_that_are_taken_make_a_hub_unfit() -> None:
    found = report("gpu-tower", roles=("hub",))
    port = results(found)["ports.8100"]
    assert (port.verdict, port.found, port.unfit) == ("bad", "taken; root can tell by what", ("hub",))
    assert found.unfit == ("hub",)
    assert found.summary.startswith("hub unfit; bad: Port 8100; ")
    assert "ports.22" not in results(found)


def test_a_small_virtual_machine_with_a_broker_of_its_own() -> None:
    found = report("virtual-machine", roles=("hub", "expert"))
    by = results(found)
    assert found.unfit == ("hub", "expert")
    assert by["ports.1883"].found == "taken by mosquitto"
    assert by["services.rivals"].found == "mosquitto"
    assert by["disk.models"].verdict == "bad"
    assert by["disk.state"].verdict == "warn"
    assert by["disk.health.vda"].found.endswith("health: it knows no SMART, or stands still")
    assert by["clock.synchronised"].found == "not synchronised, by systemd-timesyncd"
    assert by["system.virtual"].found == "QEMU Standard PC (Q35 + ICH9, 2009), in kvm"
    assert by["memory.vision"].about == "vision"
    assert by["memory.vision"] not in found.shown
    assert by["wake.magic-packet"].found == "ens18 unsupported"
    unreached = results(report("virtual-machine", EXPERT))["network.broker"]
    assert (unreached.verdict, unreached.found) == ("bad", "hub.lan:1883: [Errno 111] Connection refused")
    assert unreached.unfit == (), "the machine is sound all the same"
    own = report("virtual-machine", {"broker": {"url": "mqtt://localhost"}}, roles=("hub",))
    assert results(own)["network.broker"].verdict == "warn", "a hub's own broker comes with the deploy"


def test_a_laptop_on_battery() -> None:
    found = report("laptop")
    by = results(found)
    assert by["power.supply"].found == "on battery: battery at 63 %"
    assert by["heat.processor"].found == "91 °C, limit 100 °C"
    assert by["heat.throttling"].found == "slowed down by heat 14 times since the start"
    assert by["sleep.states"].found == "s2idle only ([s2idle])"
    assert by["wake.magic-packet"].found == "enp0s31f6 armed, without a cable"
    assert by["system.administrator"].verdict == "warn"
    assert (by["system.distribution"].found, by["system.distribution"].verdict) == ("Ubuntu 24.04.3 LTS", "warn")
    assert by["system.python"].found == "Python 3.12.3"
    assert by["processor.cores"].found == "4 cores, 8 threads"
    assert by["services.rivals"].found == "ollama, tlp"
    assert "disk.health.sdb" not in by, "a stick is no disk of the machine"
    assert fitness(found) == {"hub": "limited", "expert": "limited", "voice": "limited", "vision": "limited"}
    assert found.unfit == (), "nobody has said what it is to do, and it is good for something"


@pytest.mark.parametrize("name", NAMES)
def test_a_report_fits_80_columns_and_json(name: str) -> None:
    found = report(name)
    console = Console(width=80, markup=False, highlight=False)
    with console.capture() as capture:
        print_outcome(console, found, brief=False, first=True)
    shown = capture.get()
    assert max(map(len, shown.splitlines())) <= 80
    for result in found.results:
        assert result.title in shown
    told = json.loads(json.dumps(found.as_json))
    assert {check["id"] for check in told["checks"]} == {result.id for result in found.results}
    assert set(told["roles"]) == {"hub", "expert", "voice", "vision"}


@pytest.mark.parametrize("name", NAMES)
def test_whatever_is_wrong_says_what_is_needed(name: str) -> None:
    for result in report(name).results:
        if result.verdict in {"warn", "bad"}:
            assert result.needed, result
            assert result.remedy.endswith("."), result
        if result.unfit:
            assert result.verdict == "bad", result


def test_ports_that_rouse_itself_has_are_no_obstacle() -> None:
    again = content("gpu-tower").replace(b"|ssh.service", b"|rouse-hub.service\n|mosquitto.service\n|ssh.service")
    found = report_on(parse(again, TOKEN), wanted(roles=("hub",)), host="x", time=0.0, seconds=0.0, moment=None)
    by = results(found)
    assert (by["ports.8100"].verdict, found.unfit) == ("ok", ())
    assert by["ports.8100"].found == "taken, as it seems by Rouse itself (rouse-hub)"
    assert by["services.rivals"].found == "ollama"


def test_debians_mosquitto_becomes_the_hubs_broker() -> None:
    again = content("virtual-machine").replace(b"|ssh.service", b"|mosquitto.service\n|ssh.service")
    assert again != content("virtual-machine")
    found = report_on(parse(again, TOKEN), wanted(roles=("hub",)), host="x", time=0.0, seconds=0.0, moment=None)
    by = results(found)
    assert by["ports.1883"].verdict == "ok"
    assert by["ports.1883"].found == "taken by mosquitto, which the deploys make the hub's broker"
    assert by["services.rivals"].verdict == "ok"
