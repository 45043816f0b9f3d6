"""Experts as systemd units, on a real message bus with a systemd that runs real processes."""

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from appliance.node import daemon, unit
from appliance.node.dbus.systemd import escape, unit_name
from scripts.house.mosquitto import mosquitto
from scripts.house.mosquitto import program as mosquitto_program
from tests.system.conftest import PASSWORDS, RunningBroker
from tests.system.machine.bus_daemon import BusDaemon
from tests.system.machine.bus_daemon import program as dbus_program
from tests.system.machine.expert import PlayedExpert
from tests.system.machine.node import Heard, Observer, running_node
from tests.system.machine.systemd import FakeSystemd, Unit

pytestmark = [
    pytest.mark.broker,
    pytest.mark.skipif(mosquitto_program() is None, reason="mosquitto is not installed: apt-get install mosquitto"),
    pytest.mark.skipif(dbus_program() is None, reason="dbus-daemon is not installed: apt-get install dbus"),
]

NOTIFIES = """
import asyncio, os, signal
from appliance.notify import ServiceManager
async def main():
    manager = ServiceManager(os.environ)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    manager.status('{"waiting": "waiting for workers: 192.0.2.9:50053"}')
    await asyncio.sleep(1.5)
    manager.ready('{"url": "%s", "model": "m", "context": 512, "slots": 2, "capabilities": ["chat"]}')
    watchdog = asyncio.create_task(manager.keep_alive())
    await stop.wait()
    watchdog.cancel()
    manager.stopping()
asyncio.run(main())
"""


class Machine:
    """A node whose experts are units."""

    def __init__(self, folder: Path, heard: Heard, expert: PlayedExpert, dbus: BusDaemon) -> None:
        self.folder = folder
        self.heard = heard
        self.expert = expert
        self.dbus = dbus
        self.script: str | None = None
        self.systemd = FakeSystemd(dbus.address, folder, self._command)

    def _command(self, _unit: str) -> tuple[str, ...]:
        return (sys.executable, "-c", self.script or NOTIFIES.replace("%s", self.expert.url))

    @property
    def unit(self) -> Unit:
        return self.systemd.units["rouse-expert@small.service"]

    async def until_expert(self, state: str, count: int = 1) -> str | None:
        def seen() -> list[str | None]:
            return [status.error for status in self.heard.all("expert") if status is not None and status.state == state]

        await self.heard.until(lambda: len(seen()) >= count, f"expert {state}, {count} times", 30)
        return seen()[count - 1]


@pytest.fixture
async def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Machine]:
    monkeypatch.setattr(unit, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(unit, "PROBE_SECONDS", 0.05)
    monkeypatch.setattr(unit, "FIRST_BACKOFF_SECONDS", 0.1)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        broker = await enter(
            RunningBroker(lambda port: mosquitto(tmp_path / "mosquitto", port=port, passwords=PASSWORDS))
        )
        expert, heard, dbus = PlayedExpert(), Heard(), BusDaemon()
        await enter(dbus)
        machine = Machine(tmp_path, heard, expert, dbus)
        await enter(machine.systemd)
        await enter(expert.served())
        await enter(Observer(broker, heard).listening())
        plan = daemon.PowerPlan()
        machine_node = running_node(
            broker, expert, address=dbus.address, folder=tmp_path, plan=plan, supervisor="systemd"
        )
        stack.callback(lambda: None)
        machine.node = machine_node  # type: ignore[attr-defined]
        yield machine
