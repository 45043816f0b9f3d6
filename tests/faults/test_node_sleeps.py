"""A whole house whose node is put to sleep by somebody else, and real experts as units of systemd."""

import json
import sys
from pathlib import Path

import pytest

from appliance.bus.topics import NODE_POWER, NODE_STATUS
from appliance.experts.prefixes.store import SUFFIX
from appliance.node import daemon
from scripts.house.appliance import MODEL, Appliance
from scripts.house.mosquitto import mosquitto, program
from tests.faults.house import ENDLESS, LONG, NODE, House, is_online, running_house
from tests.system.conftest import PASSWORDS, RunningBroker
from tests.system.machine.bus_daemon import BusDaemon
from tests.system.machine.bus_daemon import program as dbus_program
from tests.system.machine.expert import PlayedExpert
from tests.system.machine.logind import FakeLogind
from tests.system.machine.node import Heard, Observer, running_node
from tests.system.machine.systemd import FakeSystemd

pytestmark = [
    pytest.mark.broker,
    pytest.mark.model,
    pytest.mark.skipif(program() is None, reason="mosquitto is not installed: apt-get install mosquitto"),
    pytest.mark.skipif(dbus_program() is None, reason="dbus-daemon is not installed: apt-get install dbus"),
]

STATUS, POWER = NODE_STATUS.at(node=NODE), NODE_POWER.at(node=NODE)
INSTRUCTIONS = "You are the voice of a house. " + "Answer in one short sentence, and never ask back. " * 8


async def saves(house: House) -> float:
    """How often the expert was asked to save its prefixes, and did."""
    status = await house.observed.until_expert("small", "ready")
    headers = {"Authorization": f"Bearer {house.appliance.secret('expert.key')}"}
    async with house.http.get(f"{str(status.url).removesuffix('/v1')}/metrics", headers=headers) as response:
        lines = (await response.text()).splitlines()
    wanted = 'rouse_expert_requests_total{endpoint="/prefixes/save",expert="small",status="200"} '
    return next((float(line.removeprefix(wanted)) for line in lines if line.startswith(wanted)), 0.0)


async def test_a_node_that_is_put_to_sleep_keeps_its_prefixes_and_answers_when_it_wakes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with BusDaemon() as dbus, FakeLogind(dbus.address) as logind:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", dbus.address)
        async with running_house(tmp_path, "mosquitto") as house:
            seen = house.observed.latest
            await house.observed.until(lambda: bool(logind.held("delay")), "a delay lock")
            for question in ("What time is it?", "Who is there?", "Is it cold?"):
                messages = [{"role": "system", "content": INSTRUCTIONS}, {"role": "user", "content": question}]
                async with house.post(messages=messages, max_tokens=4) as response:
                    assert response.status == 200
            await logind.close_lid()
            assert logind.put_down == [("suspend", "released")]
            assert list((house.appliance.folder / "state" / "prefixes" / "small").glob(f"*{SUFFIX}"))
            await house.observed.until(lambda: not is_online(seen.get(STATUS)), "node offline")
            assert seen[POWER].state == "asleep"
            expert = house.observed.expert("small")
            assert expert is not None
            assert expert.state == "ready"
            assert await saves(house) == 1

            await logind.wake()
            await house.observed.until(lambda: is_online(seen.get(STATUS)), "node online")
            await house.observed.until(lambda: seen[POWER].state == "awake", "node awake")
            await house.answers()


SLEEPER = """
[node]
roles = ["expert"]
[power]
idle_after = 4
minimum_awake = 0
suspend_seconds = 0
resume_seconds = 0
sleep_without_wake = true
measure_interval = 1
"""


async def test_rouse_node_sleeps_by_the_settings_and_not_while_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with BusDaemon() as dbus, FakeLogind(dbus.address) as logind:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", dbus.address)
        async with running_house(tmp_path, "mosquitto", group=SLEEPER) as house:
            seen = house.observed.latest
            async with house.chat(LONG, **ENDLESS) as response:
                await response.content.readline()
                reason = "it answers requests"
                await house.observed.until(lambda: reason in seen[POWER].blockers, "what keeps it awake")
                assert logind.calls.count("Suspend") == 0
            await house.observed.until(lambda: seen[POWER].state == "asleep", "node asleep")
            await house.observed.until(lambda: bool(logind.put_down), "down")
            assert logind.put_down == [("suspend", "released")]
            assert seen[POWER].reason == "nobody has used it for 4 seconds"

            await logind.wake()
            await house.observed.until(lambda: seen[POWER].state == "awake", "node awake")
            await house.answers()
            await house.observed.until(lambda: len(logind.put_down) == 2, "down again")
        account = json.loads((house.appliance.folder / "state" / "node" / "power" / "energy.json").read_text())
        assert account["used"] > 0


async def test_the_block_lock_is_there_while_a_real_expert_generates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with BusDaemon() as dbus, FakeLogind(dbus.address) as logind:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", dbus.address)
        async with running_house(tmp_path, "mosquitto") as house:
            await house.observed.until(lambda: bool(logind.held("delay")), "a delay lock")
            assert logind.held("block") == []
            async with house.chat(LONG, **ENDLESS) as response:
                await response.content.readline()
                await house.observed.until(lambda: bool(logind.held("block")), "a block lock")
            await house.observed.until(lambda: not logind.held("block"), "no block lock any more")


async def test_a_real_expert_tells_systemd_where_it_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    appliance = Appliance(tmp_path / "expert", broker_port=0, gateway_port=0, experts={"small": MODEL})
    appliance.configure()
    monkeypatch.setenv("ROUSE_CONFIG_DIR", str(appliance.folder))
    heard = Heard()
    command = (sys.executable, "-m", "appliance", "expert", "small")
    async with (
        RunningBroker(lambda port: mosquitto(tmp_path / "mosquitto", port=port, passwords=PASSWORDS)) as broker,
        BusDaemon() as dbus,
        FakeSystemd(dbus.address, tmp_path, lambda _: command) as systemd,
        Observer(broker, heard).listening(),
    ):
        async with running_node(
            broker,
            PlayedExpert(),
            address=dbus.address,
            folder=tmp_path,
            plan=daemon.PowerPlan(),
            supervisor="systemd",
        ):
            await heard.until(lambda: getattr(heard.last("expert"), "state", "") == "ready", "expert ready", 60)
            status = heard.last("expert")
            assert status.model == MODEL.stem
            assert "chat" in status.capabilities
            unit = systemd.units["rouse-expert@small.service"]
            await heard.until(lambda: unit.said.count("WATCHDOG=1") >= 3, "signs of life of the engine")
        assert unit.active == "inactive"
        assert unit.said[-1] == "STOPPING=1"
        assert unit.result == "success"
