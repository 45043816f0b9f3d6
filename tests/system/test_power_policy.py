"""A node's sleep by the real policy of its settings, on a real broker and a real message bus."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from appliance.cli.power_plan import power_plan
from appliance.node import daemon
from appliance.node.sleeping.alarm import AlarmClock
from appliance.settings.model import Settings
from scripts.house.mosquitto import mosquitto
from scripts.house.mosquitto import program as mosquitto_program
from tests.system.conftest import PASSWORDS, RunningBroker
from tests.system.machine.bus_daemon import BusDaemon
from tests.system.machine.bus_daemon import program as dbus_program
from tests.system.machine.expert import PlayedExpert
from tests.system.machine.logind import FakeLogind
from tests.system.machine.node import Heard, Observer, running_node

pytestmark = [
    pytest.mark.broker,
    pytest.mark.skipif(mosquitto_program() is None, reason="mosquitto is not installed: apt-get install mosquitto"),
    pytest.mark.skipif(dbus_program() is None, reason="dbus-daemon is not installed: apt-get install dbus"),
]

BRIEF: dict[str, Any] = {
    "idle_after": 1.0,
    "minimum_awake": 0.0,
    "suspend_seconds": 0.0,
    "resume_seconds": 0.0,
    "sleep_without_wake": True,
    "measure_interval": 1.0,
    "meters": [],
}


def hours(first: timedelta, last: timedelta) -> str:
    """Return the weekly hours from so long before or after now until then, by UTC."""
    begin, end = (datetime.now(UTC) + shift for shift in (first, last))
    return f"{begin:%a} {begin:%H:%M}-{end:%H:%M}".lower()


class Machine:
    """A node with the plan that `rouse node` makes of its settings."""

    def __init__(self, stack: AsyncExitStack, folder: Path) -> None:
        self._stack = stack
        self._folder = folder
        self.heard = Heard()
        self.expert = PlayedExpert()
        self.dbus = BusDaemon()
        self.logind = FakeLogind(self.dbus.address)
        self.updating = False
        self.roles = ["expert"]

    async def start(self, **power: Any) -> None:
        enter = self._stack.enter_async_context
        broker = await enter(
            RunningBroker(lambda port: mosquitto(self._folder / "mosquitto", port=port, passwords=PASSWORDS))
        )
        await enter(self.dbus)
        await enter(self.logind)
        await enter(self.expert.served())
        self.observer = await enter(Observer(broker, self.heard).listening())
        settings = Settings.model_validate(
            {
                "node": {"roles": self.roles},
                "power": BRIEF | power,
                "system": {"time_zone": "UTC"},
                "paths": {"state": self._folder / "state", "models": self._folder},
            }
        )
        plan = power_plan(settings, update_running=lambda: self.updating)
        quick = replace(plan.options, busy_interval=0.02, decide_interval=0.05)
        await enter(
            running_node(
                broker,
                self.expert,
                address=self.dbus.address,
                folder=self._folder,
                plan=replace(plan, options=quick),
            )
        )
        await self.heard.until(lambda: getattr(self.heard.last("expert"), "state", "") == "ready", "expert ready")
        await self.heard.until_power("awake")

    async def until_asleep(self) -> None:
        async with asyncio.timeout(30):
            await self.logind.down.wait()

    async def until_blocked(self, sentence: str) -> None:
        await self.heard.until(lambda: sentence in self.heard.last("power").blockers, sentence)

    @property
    def account(self) -> Path:
        return self._folder / "state" / "node" / "power" / "energy.json"


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[Machine]:
    async with AsyncExitStack() as stack:
        yield Machine(stack, tmp_path)


async def test_it_sleeps_after_its_idle_time_and_says_why(machine: Machine) -> None:
    await machine.start()
    assert machine.heard.last("power").method == "suspend"
    machine.expert.is_idle(100)
    await machine.until_asleep()
    assert machine.logind.put_down == [("suspend", "released")]
    await machine.heard.until_power("asleep")
    assert machine.heard.last("power").reason == "nobody has used it for a second"


async def test_it_never_sleeps_while_it_answers_or_installs_an_update(machine: Machine) -> None:
    machine.updating = True
    machine.expert.is_busy()
    await machine.start()
    await machine.until_blocked("it answers requests")
    await machine.until_blocked("an update is being installed")
    machine.expert.is_idle(100)
    await machine.heard.until(
        lambda: machine.heard.last("power").blockers == ("an update is being installed",), "only the update"
    )
    await asyncio.sleep(1.5)
    assert machine.logind.calls.count("Suspend") == 0
    machine.updating = False
    await machine.until_asleep()


async def test_people_and_wishes_keep_it_awake(machine: Machine) -> None:
    machine.logind.people = [("anna", "seat0", "user", "active")]
    await machine.start()
    machine.expert.is_idle(100)
    await machine.until_blocked("anna (seat0) is logged in")
    await machine.observer.ask("stay_awake", reason="a long evening")
    await machine.until_blocked("it was asked to stay awake")
    machine.logind.people = []
    await machine.heard.until(
        lambda: machine.heard.last("power").blockers == ("it was asked to stay awake",), "only the wish"
    )
    assert machine.logind.calls.count("Suspend") == 0
    await machine.observer.ask("sleep")
    await machine.until_asleep()


async def test_by_its_schedule_it_is_awake(machine: Machine) -> None:
    await machine.start(awake=[hours(timedelta(minutes=-5), timedelta(hours=2))])
    machine.expert.is_idle(100)
    await machine.heard.until(
        lambda: any("by its schedule it is awake until" in said for said in machine.heard.last("power").blockers),
        "the schedule",
    )
    await asyncio.sleep(1.5)
    assert machine.logind.calls.count("Suspend") == 0


async def test_it_sets_its_clock_for_the_schedule(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alarm = tmp_path / "wakealarm"
    alarm.write_text("")
    monkeypatch.setattr(daemon, "AlarmClock", lambda: AlarmClock(alarm))
    # Nothing but the clock could wake it, and that is enough.
    await machine.start(awake=[hours(timedelta(hours=3), timedelta(hours=4))], sleep_without_wake=False)
    machine.expert.is_idle(100)
    await machine.until_asleep()
    seconds = int(alarm.read_text().removeprefix("+"))
    assert 3 * 3600 - 130 < seconds <= 3 * 3600
    next_wake = machine.heard.last("power").next_wake
    assert next_wake is not None
    assert next_wake % 60 == 0
    assert next_wake > time.time()


async def test_in_some_hours_it_is_powered_off_if_nothing_forbids_either(machine: Machine) -> None:
    film = machine.logind.lock_of_another("sleep", who="Film", why="A film is shown")
    machine.logind.answers["CanPowerOff"] = "challenge"
    await machine.start(power_off=["daily 00:00-24:00"], shutdown_seconds=0.0, boot_seconds=0.0)
    machine.expert.is_idle(100)
    await machine.until_blocked("Film (process 4242) forbids it: A film is shown")
    machine.logind.locks.remove(film)
    refused = (
        "the service's user may not power this machine off: polkit refuses org.freedesktop.login1.power-off, "
        "see docs/sleeping.md"
    )
    await machine.until_blocked(refused)
    backup = machine.logind.lock_of_another("shutdown")
    machine.logind.answers["CanPowerOff"] = "yes"
    await machine.until_blocked("Backup (process 4242) forbids it: Copies files")
    assert machine.logind.calls.count("PowerOff") == 0
    machine.logind.locks.remove(backup)
    await machine.until_asleep()
    assert machine.logind.put_down == [("poweroff", "released")]
    assert machine.logind.calls.count("Suspend") == 0


async def test_a_node_without_means_of_waking_stays_awake(machine: Machine) -> None:
    await machine.start(sleep_without_wake=False)
    machine.expert.is_idle(100)
    await machine.heard.until(
        lambda: any("nothing could wake it" in said for said in machine.heard.last("power").blockers), "no wake"
    )
    assert machine.logind.calls.count("Suspend") == 0


async def test_a_machine_that_is_needed_at_any_moment_never_sleeps(machine: Machine) -> None:
    machine.roles = ["expert", "vision"]
    await machine.start()
    machine.expert.is_idle(100)
    reason = "it serves as vision, which may be needed at any moment"
    await machine.heard.until(lambda: machine.heard.last("power").reason == reason, reason)
    assert machine.heard.last("power").method is None
    await machine.observer.ask("sleep")
    await asyncio.sleep(0.5)
    assert machine.logind.put_down == []


async def test_it_keeps_an_account_and_says_how_it_knows(machine: Machine) -> None:
    await machine.start(idle_after=1000.0)
    await machine.heard.until(lambda: len(machine.heard.all("energy")) >= 3, "three readings")
    first, last = machine.heard.all("energy")[0], machine.heard.last("energy")
    assert (last.source, last.baseline) == ("estimate", "settings")
    assert last.used_kwh > first.used_kwh >= 0
    assert last.since == pytest.approx(time.time(), abs=120)


async def test_the_account_is_on_disk_when_the_daemon_has_ended(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        machine = Machine(stack, tmp_path)
        await machine.start(idle_after=1000.0)
        await machine.heard.until(lambda: len(machine.heard.all("energy")) >= 2, "two readings")
        said = machine.heard.last("energy").used_kwh
    kept = json.loads(machine.account.read_text())
    assert kept["used"] / 3.6e6 >= said
    async with AsyncExitStack() as stack:
        again = Machine(stack, tmp_path)
        await again.start(idle_after=1000.0)
        await again.heard.until(lambda: bool(again.heard.all("energy")), "a reading")
        assert again.heard.last("energy").used_kwh >= said
        assert again.heard.last("energy").since == kept["since"]
