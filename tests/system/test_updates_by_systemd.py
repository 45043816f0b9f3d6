"""The node daemon's own parts under its updates: a real message bus, with systemd and logind played on it."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from appliance.bus.client import Bus
from appliance.bus.topics import NODE_UPDATE, UPDATE_COMMAND
from appliance.bus.update_messages import NodeUpdate, UpdateCommand
from appliance.cli.updating import make_updates
from appliance.node import daemon
from appliance.node.updating import NodeParts
from appliance.settings.model import Settings
from appliance.updates import service as update_service
from appliance.updates.image import ImagePaths
from appliance.updates.records import Baseline, read
from appliance.updates.service import Rhythm, UpdateService
from scripts.house.mosquitto import mosquitto
from scripts.house.mosquitto import program as mosquitto_program
from tests.system.conftest import PASSWORDS, RunningBroker
from tests.system.machine.bus_daemon import BusDaemon
from tests.system.machine.bus_daemon import program as dbus_program
from tests.system.machine.expert import PlayedExpert
from tests.system.machine.logind import FakeLogind
from tests.system.machine.node import NODE, running_node
from tests.system.machine.systemd import FakeSystemd
from tests.unit.updates.publisher import Publisher, missing_programs

pytestmark = [
    pytest.mark.broker,
    pytest.mark.skipif(mosquitto_program() is None, reason="mosquitto is not installed: apt-get install mosquitto"),
    pytest.mark.skipif(dbus_program() is None, reason="dbus-daemon is not installed: apt-get install dbus"),
    pytest.mark.skipif(bool(missing_programs()), reason="GnuPG is not installed: apt-get install gpg gpgv"),
]

ROOT_PART = """
import pathlib, sys
from appliance.updates.records import Outcome, write
from appliance.notify import ServiceManager
import os
ServiceManager(os.environ).status("0.500 writing the other slot")
path = pathlib.Path(sys.argv[1]) / "outcome.json"
path.unlink(missing_ok=True)
write(path, Outcome(version="2.0", ok=True))
"""


class Machine:
    """A node that runs version 1.0 of the image, as its daemon sees it."""

    def __init__(
        self, folder: Path, publisher: Publisher, dbus: BusDaemon, broker: RunningBroker, expert: PlayedExpert
    ) -> None:
        self.paths = ImagePaths(
            os_release=folder / "os-release", keys=(publisher.keys,), own=folder / "own", staged=folder / "staged"
        )
        self.paths.own.mkdir()
        self.paths.os_release.write_text("IMAGE_ID=rouse\nIMAGE_VERSION=1.0\n")
        command = (sys.executable, "-c", ROOT_PART, str(self.paths.own))
        self.systemd = FakeSystemd(dbus.address, folder, lambda _: command)
        self.systemd.known = lambda name: name.startswith("rouse-update")
        self.systemd.start_delay = 0.5
        self.logind = FakeLogind(dbus.address)
        self.heard: list[NodeUpdate] = []
        self.withdrawn = 0
        self.node = AsyncExitStack()
        self._folder = folder
        self._broker = broker
        self._expert = expert
        self.observer = Bus(broker.connection("homeassistant"), identifier="observer")
        self.observer.subscribe(NODE_UPDATE, self._hear)
        self._source = publisher.folder
        self._dbus = dbus.address

    async def start(self) -> None:
        await self.node.enter_async_context(
            running_node(
                self._broker,
                self._expert,
                address=self._dbus,
                folder=self._folder,
                plan=daemon.PowerPlan(),
                updates=self.updates,
            )
        )

    async def _hear(self, update: NodeUpdate | None, _levels: object) -> None:
        if update is not None:
            self.heard.append(update)
        else:
            self.withdrawn += 1

    def updates(self, parts: NodeParts) -> UpdateService | None:
        settings = Settings.model_validate({"updates": {"source": str(self._source), "quiet": 0}})
        return make_updates(parts, settings, self.paths)

    async def install(self) -> None:
        command = UpdateCommand(id="command-1", action="install")
        await self.observer.publish(UPDATE_COMMAND, command, node=NODE)

    async def until_state(self, state: str) -> NodeUpdate:
        async with asyncio.timeout(60):
            while not self.heard or self.heard[-1].state != state:
                await asyncio.sleep(0.02)
        return self.heard[-1]


@pytest.fixture
async def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Machine]:
    monkeypatch.setattr(update_service, "Rhythm", lambda: Rhythm(tick=0.1, look=0.05))
    publisher = Publisher(tmp_path / "p")
    publisher.publish("2.0")
    async with AsyncExitStack() as stack:
        stack.callback(publisher.close)
        dbus = await stack.enter_async_context(BusDaemon())
        broker = await stack.enter_async_context(
            RunningBroker(lambda port: mosquitto(tmp_path / "mosquitto", port=port, passwords=PASSWORDS))
        )
        expert = await stack.enter_async_context(PlayedExpert().served())
        expert.is_idle(100.0)
        machine = Machine(tmp_path, publisher, dbus, broker, expert)
        await stack.enter_async_context(machine.systemd)
        await stack.enter_async_context(machine.logind)
        await stack.enter_async_context(machine.observer)
        await machine.observer.wait_connected(10)
        stack.push_async_callback(machine.node.aclose)
        await machine.start()
        yield machine


async def test_systemd_installs_and_logind_restarts(machine: Machine) -> None:
    await machine.until_state("idle")
    await machine.install()
    await machine.until_state("rebooting")
    async with asyncio.timeout(30):
        await machine.logind.down.wait()
    assert "Reboot" in machine.logind.calls
    assert [name for name in machine.systemd.units if name.startswith("rouse-update")] == ["rouse-update@2.0.service"]
    baseline = read(machine.paths.staged / "baseline.json", Baseline)
    assert baseline is not None
    assert baseline.experts == ["small"]
    assert baseline.broker


async def test_polkit_says_no(machine: Machine) -> None:
    await machine.until_state("idle")
    machine.systemd.refuses = True
    await machine.install()
    said = await machine.until_state("failed")
    assert "polkit does not allow it to this service's user" in (said.error or "")
    assert "Reboot" not in machine.logind.calls


async def test_an_image_without_the_unit(machine: Machine) -> None:
    await machine.until_state("idle")
    machine.systemd.known = lambda _: False
    await machine.install()
    said = await machine.until_state("failed")
    assert "this image has no unit for it" in (said.error or "")


async def test_a_machine_that_runs_the_image_no_more_withdraws_what_it_said(machine: Machine) -> None:
    await machine.until_state("idle")
    await machine.node.aclose()
    machine.paths.os_release.write_text("ID=debian\n")
    await machine.start()
    async with asyncio.timeout(30):
        while machine.withdrawn == 0:
            await asyncio.sleep(0.02)
