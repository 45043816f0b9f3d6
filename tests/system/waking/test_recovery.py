"""Machines that are gone without goodbye: hub, broker, node daemon and programs are real processes."""

import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from appliance.bus.client import Bus
from appliance.bus.topics import PLUG_COMMAND, PLUG_RESULT, REPAIR_NOTICE
from appliance.bus.waking_messages import PlugCommand, PlugResult
from appliance.security.layout import secret_file
from scripts.house.processes import free_port
from tests.system.machine.bus_daemon import program as dbus_program
from tests.system.waking.house import House, Listener, Sleeper, clients
from tests.unit.power.recovery.machines import PASSWORD, Controller, program

pytestmark = [
    pytest.mark.broker,
    pytest.mark.timeout(300),
    pytest.mark.skipif(dbus_program() is None, reason="dbus-daemon is not installed: apt-get install dbus"),
]

NOTICE = REPAIR_NOTICE.at(node="attic")


class Plug:
    """Home Assistant's part: hears commands, and answers as told."""

    def __init__(self, house: House, answer: Callable[[PlugCommand], PlugResult | None]) -> None:
        self.commands: list[PlugCommand] = []
        self._answer = answer
        self.bus = Bus(house.connection(), identifier="home-assistant-plug")
        self.bus.subscribe(PLUG_COMMAND, self._take)

    async def _take(self, command: PlugCommand | None, levels: Mapping[str, str]) -> None:
        assert command is not None
        assert command.deadline > time.time()
        self.commands.append(command)
        if (result := self._answer(command)) is not None:
            await self.bus.publish(PLUG_RESULT, result, node=levels["node"])


@pytest.fixture
def port() -> int:
    return free_port()


def configured(folder: Path, port: int, *more: str, power_timeout: int = 60, confirm_timeout: int = 10) -> House:
    house = House(folder / "house")
    house.configure(
        "[wake]",
        'addresses = ["127.0.0.1"]',
        f"port = {port}",
        '[wake.nodes.attic]\nmacs = ["02:00:00:77:00:01"]',
        "[recovery]",
        "grace = 1",
        "packet_timeout = 1",
        f"power_timeout = {power_timeout}",
        f"plug_confirm_timeout = {confirm_timeout}",
        *more,
    )
    return house


@asynccontextmanager
async def lost_machine(house: House, port: int) -> AsyncIterator[tuple[Listener, Sleeper]]:
    """A machine that was there and whose power went."""
    sleeper = Sleeper(house, "attic", card={"port": port})
    async with clients(house) as (listener, _):
        async with sleeper.running():
            await sleeper.is_ready(listener)
            await sleeper.cut_power()
        await house.until(lambda: listener.presence("attic") == "offline", "attic offline, by its last will")
        yield listener, sleeper


async def test_ipmi_brings_it_back(tmp_path: Path, port: int) -> None:
    controller = Controller(tmp_path / "bin", "off")
    house = configured(
        tmp_path,
        port,
        "[recovery.nodes.attic.ipmi]",
        'host = "192.0.2.9"',
        f"password_file = {json.dumps(str(controller.password_file))}",
    )
    house.path = controller.path
    async with house.hub_process(), lost_machine(house, port) as (listener, sleeper):
        await house.until(lambda: controller.actions() == ["status", "on"], "ipmitool")
        async with sleeper.running():
            await sleeper.is_ready(listener)
            await house.until(
                lambda: [entry.outcome for entry in house.audit() if entry.what == "recovery"], "the end of the ladder"
            )
            assert listener.latest.get(NOTICE) is None
    told = [(entry.what, entry.outcome) for entry in house.audit()]
    assert told == [
        ("wake", "failed"),
        ("recovery.magic_packet", "failed"),
        ("recovery.ipmi", "begun"),
        ("recovery.ipmi", "returned"),
        ("recovery", "returned"),
    ]
    everything = house.logs() + (house.state / "hub" / "audit.jsonl").read_text()
    assert PASSWORD not in everything


async def test_the_plug_and_the_script_come_next_and_then_a_notice_until_it_is_back(tmp_path: Path, port: int) -> None:
    script = program(tmp_path / "sysrq", f"echo $1 >> {tmp_path}/called", "echo no console; exit 1")
    lines = ("[recovery.nodes.attic]", "plug = true", f"script = {json.dumps(str(script))}")
    house = configured(tmp_path, port, *lines, power_timeout=2)
    async with house.hub_process():
        plug = Plug(house, lambda command: PlugResult(id=command.id, ok=True, message="switch.attic is on", watts=3.5))
        async with plug.bus, lost_machine(house, port) as (listener, sleeper):
            await house.until(lambda: listener.latest.get(NOTICE) is not None, "a repair notice")
            notice = listener.latest[NOTICE]
            assert notice.problem == "lost"
            assert [(step.rung, step.outcome) for step in notice.steps] == [
                ("magic_packet", "failed"),
                ("plug", "no_return"),
                ("script", "failed"),
            ]
            assert notice.steps[1].evidence == ("the plug was switched: switch.attic is on, 3.5 W; not back within 2 s")
            assert notice.steps[2].evidence == f"{script} ended with 1: no console"
            assert (tmp_path / "called").read_text() == "attic\n"
            assert [(command.action, command.reason) for command in plug.commands] == [("cycle", "attic is missing")]
            code, said = await house.rouse("power", "status")
            assert code == 0
            assert "lost !" in said
            async with sleeper.running():
                await sleeper.is_ready(listener)
                await house.until(lambda: listener.latest.get(NOTICE) is None, "no notice any more")


async def test_a_plug_that_nobody_confirms_is_a_failure_and_not_for_ever(tmp_path: Path, port: int) -> None:
    house = configured(tmp_path, port, "[recovery.nodes.attic]", "plug = true", confirm_timeout=1)
    async with house.hub_process(), lost_machine(house, port) as (listener, _):
        await house.until(lambda: listener.latest.get(NOTICE) is not None, "a repair notice")
        step = listener.latest[NOTICE].steps[1]
        assert (step.rung, step.outcome) == ("plug", "failed")
        assert step.evidence.startswith("Home Assistant did not confirm within 1 s that the plug was switched")

        assert await house.rouse("power", "forget", "attic") == (0, "attic is forgotten.\n")
        kept = [name for name in listener.latest if "plug" not in name]
        await house.until(lambda: not any(listener.latest[name] for name in kept), "nothing of it on the bus")
        code, said = await house.rouse("power", "status")
        assert (code, said) == (0, "No node is announced on the bus.\n")


async def test_a_hub_that_is_killed_in_the_middle_does_not_switch_twice(tmp_path: Path, port: int) -> None:
    house = configured(tmp_path, port, "[recovery.nodes.attic]", "plug = true")
    async with house.hub_process() as hub:
        plug = Plug(house, lambda _command: None)
        async with plug.bus, lost_machine(house, port) as (_, sleeper):
            await house.until(lambda: len(plug.commands) == 1, "the plug is asked for")
            await house.kill_hub(hub)
            ledger = json.loads((house.state / "hub" / "power" / "recovery.json").read_text())["cases"]["attic"]
            assert ledger["begun"]["acting"] == "plug"
            assert len(ledger["switched"]) == 1
            async with house.hub_process(), clients(house) as (later, _):
                await house.until(lambda: "going on with the recovery of attic" in house.logs(), "the hub goes on")
                async with sleeper.running():
                    await sleeper.is_ready(later)
                    await house.until(
                        lambda: [entry.outcome for entry in house.audit() if entry.what == "recovery"] == ["returned"],
                        "the end of the ladder",
                        90,
                    )
                    assert len(plug.commands) == 1
                    assert later.latest.get(NOTICE) is None
    told = [(entry.what, entry.outcome) for entry in house.audit() if entry.what != "wake"]
    assert told == [
        ("recovery.magic_packet", "failed"),
        ("recovery.plug", "begun"),
        ("recovery.plug", "returned"),
        ("recovery", "returned"),
    ]


async def test_a_machine_that_answers_but_is_not_on_the_bus_is_not_touched(tmp_path: Path, port: int) -> None:
    """Its broker refuses it, say; its experts are as well as ever."""
    house = configured(tmp_path, port, "[recovery.nodes.attic]", "plug = true")
    sleeper = Sleeper(house, "attic", card={"port": port})
    async with house.hub_process() as hub, clients(house) as (listener, _), sleeper.running():
        await sleeper.is_ready(listener)
        known = house.state / "hub" / "power" / "nodes.json"
        await house.until(lambda: known.exists() and "http" in known.read_text(), "what the hub will remember")
        await house.kill_hub(hub)
        password = secret_file(house.state, "broker-rouse.password")
        password.write_text("another\n")
        async with house.hub_process(), clients(house) as (later, _):
            await house.until(lambda: later.latest.get(NOTICE) is not None, "a repair notice", 120)
            notice = later.latest[NOTICE]
            assert notice.problem == "unreachable"
            assert "answers at http://127.0.0.1:" in notice.summary
            assert notice.steps == ()
    assert [entry.what for entry in house.audit()] == ["recovery"]
