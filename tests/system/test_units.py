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

    def __init__(
        self, folder: Path, broker: RunningBroker, heard: Heard, expert: PlayedExpert, dbus: BusDaemon
    ) -> None:
        self._folder = folder
        self._broker = broker
        self._node = AsyncExitStack()
        self.heard = heard
        self.expert = expert
        self.dbus = dbus
        self.script: str | None = None
        self.systemd = FakeSystemd(dbus.address, folder, self._command)

    def _command(self, _unit: str) -> tuple[str, ...]:
        return (sys.executable, "-c", self.script or NOTIFIES.replace("%s", self.expert.url))

    async def start(self) -> None:
        await self._node.enter_async_context(
            running_node(
                self._broker,
                self.expert,
                address=self.dbus.address,
                folder=self._folder,
                plan=daemon.PowerPlan(),
                supervisor="systemd",
            )
        )

    async def stop(self) -> None:
        await self._node.aclose()

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
        machine = Machine(tmp_path, broker, heard, expert, dbus)
        await enter(machine.systemd)
        await enter(expert.served())
        await enter(Observer(broker, heard).listening())
        stack.push_async_callback(machine.stop)
        yield machine


async def test_a_unit_is_started_announced_watched_and_stopped(machine: Machine) -> None:
    await machine.start()
    await machine.heard.until(
        lambda: any(
            getattr(status, "error", None) == "waiting for workers: 192.0.2.9:50053"
            for status in machine.heard.all("expert")
        ),
        "what it waits for",
    )
    await machine.until_expert("ready")
    status = machine.heard.last("expert")
    assert (status.url, status.model, status.capabilities) == (machine.expert.url, "m", ("chat",))
    await machine.heard.until(lambda: machine.unit.said.count("WATCHDOG=1") >= 2, "signs of life")
    await machine.stop()
    assert machine.unit.active == "inactive"
    assert machine.unit.said[-1] == "STOPPING=1"
    assert machine.heard.last("expert").state == "stopped"


async def test_a_unit_that_runs_already_is_taken_over(machine: Machine) -> None:
    await machine.start()
    await machine.until_expert("ready")
    pid = machine.unit.process.pid if machine.unit.process else None
    machine.systemd.disconnect()
    await machine.dbus.kill()
    await asyncio.sleep(0.3)
    assert machine.heard.last("expert").state == "ready", "an expert that answers needs no D-Bus"
    await machine.dbus.start()
    await machine.systemd.connect()
    await machine.heard.until(lambda: machine.systemd.calls.count("StartUnit") == 2, "a second start")
    await asyncio.sleep(0.3)
    assert machine.unit.process is not None
    assert machine.unit.process.pid == pid
    assert machine.heard.last("expert").state == "ready"


async def test_a_unit_that_dies_is_restarted_by_systemd_and_announced(machine: Machine) -> None:
    await machine.start()
    await machine.until_expert("ready")
    assert machine.unit.process is not None
    machine.unit.process.kill()
    assert await machine.until_expert("failed") == "rouse-expert@small.service ended: signal"
    await machine.until_expert("ready", 2)
    assert machine.heard.last("expert").restarts == 1


async def test_a_unit_that_systemd_gives_up_is_started_again_later(machine: Machine) -> None:
    machine.script = "raise SystemExit(3)"
    machine.systemd.restart_limit = 0
    await machine.start()
    assert await machine.until_expert("failed") == "systemd gave up on rouse-expert@small.service: exit-code"
    machine.script = None
    await machine.until_expert("ready")


async def test_an_expert_that_answers_no_health_check_is_restarted(machine: Machine) -> None:
    good = machine.expert.url
    machine.expert.url = "http://127.0.0.1:9/v1"
    await machine.start()
    assert await machine.until_expert("failed") == "it hung: it did not answer its health check"
    machine.expert.url = good
    await machine.heard.until(lambda: machine.systemd.calls.count("RestartUnit") >= 1, "a restart")
    await machine.heard.until(lambda: getattr(machine.heard.last("expert"), "url", None) == good, "ready again", 30)


async def test_a_refusal_and_a_missing_unit_are_said_clearly(machine: Machine) -> None:
    machine.systemd.refuses = True
    await machine.start()
    refused = await machine.until_expert("failed")
    assert refused is not None
    assert refused.startswith("the service's user may not start rouse-expert@small.service")
    machine.systemd.refuses = False
    machine.systemd.known = lambda _name: False
    missing = "systemd has no unit rouse-expert@small.service: is it installed?"
    await machine.heard.until(lambda: machine.heard.last("expert").error == missing, missing)


async def test_without_dbus_it_says_so(machine: Machine) -> None:
    machine.systemd.disconnect()
    await machine.dbus.kill()
    await machine.start()
    await machine.heard.until(
        lambda: (
            getattr(machine.heard.last("expert"), "error", None) == "this system has no D-Bus, or it is not running"
        ),
        "no D-Bus",
    )
    await machine.dbus.start()
    await machine.systemd.connect()
    await machine.until_expert("ready")


@pytest.mark.skipif(shutil.which("systemd-escape") is None, reason="systemd-escape is not installed")
@pytest.mark.parametrize("name", ["small", "big-one", "a_b", "7b-q4_1", "-x", ".hidden", "a/b", "ü ß"])
async def test_names_are_escaped_as_systemd_does_it(name: str) -> None:
    process = await asyncio.create_subprocess_exec("systemd-escape", "--", name, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    assert escape(name) == output.decode().rstrip("\n")
    assert unit_name(name) == f"rouse-expert@{escape(name)}.service"
