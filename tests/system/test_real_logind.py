"""A node's sleep with the real systemd-logind, which is only kept from putting this machine down."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.node import daemon
from appliance.node.dbus.connection import SystemBus
from appliance.node.dbus.logind import Inhibitor, Logind
from scripts.house.mosquitto import mosquitto
from scripts.house.mosquitto import program as mosquitto_program
from scripts.house.processes import child
from tests.system.conftest import PASSWORDS, RunningBroker
from tests.system.machine.bus_daemon import BusDaemon
from tests.system.machine.bus_daemon import program as dbus_program
from tests.system.machine.expert import PlayedExpert
from tests.system.machine.node import QUICK, Heard, IdlePolicy, Observer, running_node
from tests.system.machine.real_logind import NotingSystemd, missing, real_logind

pytestmark = [
    pytest.mark.broker,
    pytest.mark.skipif(mosquitto_program() is None, reason="mosquitto is not installed: apt-get install mosquitto"),
    pytest.mark.skipif(dbus_program() is None, reason="dbus-daemon is not installed: apt-get install dbus"),
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]

DELAYS = ("delay shutdown", "delay sleep")


class Machine:
    """A node beside a real logind."""

    def __init__(self, stack: AsyncExitStack, folder: Path) -> None:
        self._stack = stack
        self._folder = folder
        self.heard = Heard()
        self.policy = IdlePolicy(idle_after=1000)
        self.options = QUICK
        self.expert = PlayedExpert()
        self.dbus = BusDaemon()

    async def set_up(self) -> None:
        enter = self._stack.enter_async_context
        self.broker = await enter(
            RunningBroker(lambda port: mosquitto(self._folder / "mosquitto", port=port, passwords=PASSWORDS))
        )
        await enter(self.dbus)
        self.systemd: NotingSystemd = await enter(real_logind(self.dbus.address, self._folder))
        await enter(self.expert.served())
        self.observer = await enter(Observer(self.broker, self.heard).listening())
        self.bus = await enter(SystemBus(self.dbus.address))
        self.logind = Logind(self.bus)

    async def start(self) -> None:
        plan = daemon.PowerPlan(decide=self.policy, options=self.options)
        await self._stack.enter_async_context(
            running_node(self.broker, self.expert, address=self.dbus.address, folder=self._folder, plan=plan)
        )
        await self.heard.until(lambda: getattr(self.heard.last("expert"), "state", "") == "ready", "expert ready")
        await self.until_locks()

    async def until_locks(self, *wanted: str) -> tuple[Inhibitor, ...]:
        """Wait for exactly these locks: the two that delay, and others."""
        async with asyncio.timeout(20):
            while True:
                found = await self.logind.inhibitors()
                if sorted(f"{lock.mode} {':'.join(lock.what)}" for lock in found) == sorted((*DELAYS, *wanted)):
                    return found
                await asyncio.sleep(0.05)

    async def until_no_locks(self) -> None:
        """Wait until both are given back; logind may go on as soon as it has the one for sleep."""
        async with asyncio.timeout(20):
            while await self.logind.inhibitors():
                await asyncio.sleep(0.02)


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[Machine]:
    async with AsyncExitStack() as stack:
        machine = Machine(stack, tmp_path)
        await machine.set_up()
        yield machine


async def test_the_way_down_and_up(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    await machine.start()
    assert {(lock.who, lock.pid) for lock in await machine.until_locks()} == {("Rouse", os.getpid())}
    machine.expert.is_idle(2000)
    machine.policy.idle_after = 0
    await machine.systemd.until_started("suspend.target")
    machine.policy.idle_after = 1000
    await machine.heard.until(lambda: getattr(machine.heard.last("presence"), "state", "") == "offline", "goodbye")
    assert machine.heard.last("power").state == "asleep"
    assert machine.expert.saves == 2
    assert await machine.logind.about_to("sleep")
    await machine.until_no_locks()
    await machine.systemd.finish()
    await machine.heard.until_power("awake", 2)
    assert "awake: it was woken" in caplog.text
    await machine.heard.until(lambda: machine.heard.last("presence").state == "online", "online")
    await machine.until_locks()


async def test_power_off(machine: Machine) -> None:
    machine.options = replace(QUICK, method="poweroff")
    machine.policy.action = "poweroff"
    await machine.start()
    machine.policy.idle_after = 0
    await machine.systemd.until_started("poweroff.target")
    await machine.heard.until(lambda: getattr(machine.heard.last("presence"), "state", "") == "offline", "goodbye")
    assert machine.heard.last("power").state == "off"


async def test_our_block_lock_while_generating_and_that_of_another_program(machine: Machine) -> None:
    await machine.start()
    machine.expert.is_busy()
    await machine.until_locks("block sleep")
    machine.expert.is_idle(0)
    await machine.until_locks()
    command = ["systemd-inhibit", "--what=sleep", "--who=Backup", "--why=Copies files", "--mode=block", "sleep", "60"]
    environment = {**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": machine.dbus.address}
    async with child(command, log=Path(os.devnull), environment=environment, grace=5):
        await machine.until_locks("block sleep")
        machine.policy.idle_after = 0
        await machine.heard.until(
            lambda: any("forbids it: Copies files" in blocker for blocker in machine.heard.last("power").blockers),
            "the other program's lock",
        )
        assert machine.systemd.started == []
    await machine.systemd.until_started("suspend.target")
