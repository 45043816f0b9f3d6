"""A node's sleep, on a real broker and a real message bus with a logind that suspends nothing."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from dbus_next.message import Message

from appliance.node import daemon
from appliance.node.clock import Clock
from appliance.node.sleeping import controller
from appliance.node.sleeping.alarm import AlarmClock
from appliance.node.sleeping.policy import SleepOptions
from scripts.house.mosquitto import mosquitto
from scripts.house.mosquitto import program as mosquitto_program
from tests.system.conftest import PASSWORDS, RunningBroker
from tests.system.machine.bus_daemon import BusDaemon
from tests.system.machine.bus_daemon import program as dbus_program
from tests.system.machine.expert import PlayedExpert
from tests.system.machine.logind import PATH, FakeLogind
from tests.system.machine.node import QUICK, Heard, IdlePolicy, Observer, running_node
from tests.system.machine.service import Answer, ServiceError

pytestmark = [
    pytest.mark.broker,
    pytest.mark.skipif(mosquitto_program() is None, reason="mosquitto is not installed: apt-get install mosquitto"),
    pytest.mark.skipif(dbus_program() is None, reason="dbus-daemon is not installed: apt-get install dbus"),
]


class Machine:
    """A node and everything around it."""

    def __init__(self, stack: AsyncExitStack, folder: Path) -> None:
        self._stack = stack
        self._folder = folder
        self.heard = Heard()
        self.policy = IdlePolicy()
        self.options: SleepOptions = QUICK
        self.expert = PlayedExpert()
        self.dbus = BusDaemon()
        self.logind = FakeLogind(self.dbus.address)
        self.updating = False
        self.roles: tuple[str, ...] = ("expert",)

    async def set_up(self) -> None:
        enter = self._stack.enter_async_context
        self.broker = await enter(
            RunningBroker(lambda port: mosquitto(self._folder / "mosquitto", port=port, passwords=PASSWORDS))
        )
        await enter(self.dbus)
        await enter(self.logind)
        await enter(self.expert.served())
        self.observer = await enter(Observer(self.broker, self.heard).listening())

    async def start(self) -> None:
        """Start the node and wait until it is there, awake and prepared."""
        plan = daemon.PowerPlan(decide=self.policy, options=self.options, update_running=lambda: self.updating)
        await self._stack.enter_async_context(
            running_node(
                self.broker,
                self.expert,
                address=self.dbus.address,
                folder=self._folder,
                plan=plan,
                roles=self.roles,
            )
        )
        await self.heard.until(lambda: getattr(self.heard.last("expert"), "state", "") == "ready", "expert ready")
        await self.heard.until_power("awake")

    async def until_locked(self) -> None:
        await self.heard.until(lambda: bool(self.logind.held("delay")), "a delay lock")

    async def until_asleep(self) -> None:
        async with asyncio.timeout(20):
            await self.logind.down.wait()

    @property
    def states(self) -> list[str]:
        """What the node said, in order: power and presence without repetitions."""
        said = [what.state for kind, what in self.heard.journal if kind in {"power", "presence"} and what is not None]
        return [state for before, state in zip([None, *said], said, strict=False) if state != before]


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[Machine]:
    async with AsyncExitStack() as stack:
        machine = Machine(stack, tmp_path)
        await machine.set_up()
        yield machine


async def test_an_idle_node_saves_says_goodbye_and_then_sleeps_and_comes_back(machine: Machine) -> None:
    await machine.start()
    await machine.until_locked()
    assert machine.states == ["online", "awake"]
    saves_when_asked: list[int] = []
    suspend = machine.logind.methods[PATH, "Suspend"]

    def asked(message: Message) -> Answer:
        saves_when_asked.append(machine.expert.saves)
        machine.heard.journal.append(("asked", None))
        return suspend(message)

    machine.logind.methods[PATH, "Suspend"] = asked
    machine.policy.idle_after = 0.05
    machine.expert.is_idle(100)
    await machine.until_asleep()
    machine.policy.idle_after = 1000
    assert machine.logind.put_down == [("suspend", "released")]
    assert saves_when_asked == [1]
    await machine.heard.until(lambda: machine.states[-1] == "offline", "goodbye")
    assert machine.states == ["online", "awake", "going_to_sleep", "asleep", "offline"]
    kinds = [kind for kind, what in machine.heard.journal if kind == "asked" or getattr(what, "state", "") == "asleep"]
    assert kinds == ["asked", "power"]
    assert machine.expert.saves == 2, "what came since is saved in the time of the delay lock"
    assert set(machine.expert.keys) != {""}
    assert machine.heard.last("power").reason == "nobody needs it"
    assert machine.heard.last("expert").state == "ready", "what a sleeping node can do stays known"
    told = len(machine.heard.all("telemetry"))

    await machine.logind.wake()
    awake = await machine.heard.until_power("awake", 2)
    await machine.heard.until(lambda: machine.heard.last("presence").state == "online", "online")
    await machine.until_locked()
    await machine.heard.until(lambda: len(machine.heard.all("telemetry")) > told, "fresh telemetry")
    assert awake.reason == "it was woken"
    assert machine.policy.seen is not None


async def test_the_idle_time_begins_anew_when_the_machine_wakes(machine: Machine) -> None:
    machine.policy.idle_after = 0.3
    await machine.start()
    machine.expert.is_idle(100)
    await machine.until_asleep()
    machine.policy.idle_after = 50
    await machine.logind.wake()
    await machine.heard.until_power("awake", 2)
    # The expert says that it has been idle for 100 seconds, but the machine was woken for something.
    await asyncio.sleep(0.5)
    assert machine.logind.put_down == [("suspend", "released")]


async def test_nothing_suspends_the_machine_in_the_middle_of_an_answer(machine: Machine) -> None:
    await machine.start()
    machine.expert.is_busy()
    await machine.heard.until(lambda: bool(machine.logind.held("block")), "a block lock")
    (lock,) = machine.logind.held("block")
    assert (lock.who, lock.what) == ("Rouse", frozenset({"sleep"}))
    await machine.heard.until(
        lambda: "it answers requests" in machine.heard.last("power").blockers, "the reason on the bus"
    )
    await machine.observer.ask("sleep")
    await asyncio.sleep(0.3)
    assert machine.logind.put_down == []
    machine.expert.is_idle(0)
    await machine.until_asleep()  # the command waited for the answer's end
    assert machine.logind.held("block") == []


async def test_commands_of_the_bus_are_obeyed(machine: Machine) -> None:
    await machine.start()
    await machine.observer.ask("stay_awake", reason="a long evening")
    await machine.heard.until(
        lambda: "somebody asked it to stay awake" in machine.heard.last("power").blockers, "stays awake"
    )
    machine.policy.idle_after = 0
    machine.expert.is_idle(100)
    await asyncio.sleep(0.3)
    assert machine.logind.put_down == []
    machine.policy.idle_after = 1000
    await machine.observer.ask("sleep", reason="bedtime")
    await machine.until_asleep()
    assert machine.heard.last("power").reason == "it was asked to sleep: bedtime"


async def test_a_wish_for_sleep_that_is_past_is_not_granted(machine: Machine) -> None:
    await machine.start()
    await machine.observer.ask("sleep", until=1000.0)
    await asyncio.sleep(0.4)
    assert machine.logind.put_down == []
    assert machine.heard.last("power").state == "awake"


async def test_a_node_that_never_sleeps_does_not_obey_but_is_prepared(machine: Machine) -> None:
    machine.options = replace(QUICK, method=None)
    machine.policy.action = "stay"
    await machine.start()
    await machine.until_locked()
    await machine.observer.ask("sleep")
    await asyncio.sleep(0.3)
    assert machine.logind.calls.count("Suspend") == 0
    await machine.logind.close_lid()
    assert machine.logind.put_down == [("suspend", "released")]
    assert machine.expert.saves == 1
    await machine.heard.until(lambda: machine.states[-1] == "offline", "goodbye")
    assert machine.heard.last("power").reason == "someone put the machine down"


async def test_the_hub_is_always_on(machine: Machine) -> None:
    machine.roles = ("hub", "expert")
    machine.policy.idle_after = 0
    await machine.start()
    await machine.observer.ask("sleep")
    reason = "it is the hub, which is always on"
    await machine.heard.until(lambda: machine.heard.last("power").reason == reason, reason)
    await asyncio.sleep(0.3)
    assert machine.logind.put_down == []
    assert machine.heard.last("power").method is None


async def test_power_off_says_off(machine: Machine) -> None:
    machine.options = replace(QUICK, method="poweroff")
    machine.policy.action = "poweroff"
    await machine.start()
    machine.policy.idle_after = 0
    await machine.until_asleep()
    assert machine.logind.put_down == [("poweroff", "released")]
    await machine.heard.until(lambda: machine.states[-2:] == ["off", "offline"], "off")


@pytest.mark.parametrize(
    ("cause", "sentence"),
    [
        ("challenge", "polkit refuses org.freedesktop.login1.suspend"),
        ("na", "logind can't suspend this machine"),
        ("inhibitor", "Backup (process 4242) forbids it: Copies files"),
        ("session", "anna (seat0) is logged in"),
        ("update", "an update is being installed"),
        ("no wake", "nothing could wake it"),
    ],
)
async def test_what_keeps_the_node_awake_is_said_clearly(machine: Machine, cause: str, sentence: str) -> None:
    machine.policy.idle_after = 0
    match cause:
        case "challenge" | "na":
            machine.logind.answers["CanSuspend"] = cause
        case "inhibitor":
            machine.logind.lock_of_another("sleep:shutdown")
        case "session":
            machine.logind.people = [
                ("anna", "seat0", "user", "active"),
                ("gdm", "seat0", "greeter", "online"),
                ("anna", "", "manager", "active"),
                ("bert", "", "user", "closing"),
            ]
        case "update":
            machine.updating = True
        case "no wake":
            machine.options = replace(QUICK, without_wake=False)
    await machine.start()

    def said() -> bool:
        blockers = machine.heard.last("power").blockers
        return len(blockers) == 1 and sentence in blockers[0]

    await machine.heard.until(said, sentence)
    assert machine.logind.calls.count("Suspend") == 0


async def test_a_refusal_at_the_last_moment_is_one_clear_blocker_and_not_tried_at_once(machine: Machine) -> None:
    machine.logind.refuses = True
    machine.policy.idle_after = 0
    await machine.start()
    await machine.heard.until(lambda: "Suspend" in machine.logind.calls, "a try")
    await machine.heard.until(lambda: bool(machine.heard.last("power").blockers), "the refusal")
    power = machine.heard.last("power")
    assert power.state == "awake"
    (blocker,) = power.blockers
    assert blocker == (
        "the service's user may not suspend this machine: polkit refuses org.freedesktop.login1.suspend, "
        "see docs/sleeping.md"
    )
    await asyncio.sleep(0.5)
    assert machine.logind.calls.count("Suspend") == 1
    assert machine.heard.last("presence").state == "online"


async def test_an_expert_that_does_not_save_in_time_does_not_cost_the_goodbye(machine: Machine) -> None:
    machine.logind.longest_delay = 1.0
    machine.logind._set("InhibitDelayMaxUSec", "t", 1_000_000)
    await machine.start()
    await machine.until_locked()
    machine.expert.may_save.clear()
    await machine.logind.close_lid()
    machine.expert.may_save.set()
    assert machine.logind.put_down == [("suspend", "released")]
    await machine.heard.until(lambda: machine.states[-2:] == ["asleep", "offline"], "goodbye")


async def test_a_broker_that_is_lost_does_not_hold_up_the_sleep(machine: Machine) -> None:
    await machine.start()
    await machine.until_locked()
    await machine.broker.stop()
    await machine.logind.close_lid()
    assert machine.logind.put_down == [("suspend", "released")]
    machine.heard.journal.clear()
    await machine.broker.start()
    await machine.logind.wake()
    await machine.heard.until(lambda: machine.states[-2:] in (["online", "awake"], ["awake", "online"]), "back")
    await machine.until_locked()


async def test_without_a_broker_the_node_stays_awake(machine: Machine) -> None:
    await machine.start()
    await machine.broker.stop()
    machine.policy.idle_after = 0
    await asyncio.sleep(0.5)
    assert machine.logind.put_down == []


async def test_dbus_may_be_killed_and_started_again(machine: Machine) -> None:
    await machine.start()
    await machine.until_locked()
    machine.logind.disconnect()
    await machine.dbus.kill()
    machine.policy.idle_after = 0
    await machine.heard.until(
        lambda: any("D-Bus" in blocker for blocker in machine.heard.last("power").blockers), "no D-Bus"
    )
    await machine.dbus.start()
    await machine.logind.connect()
    await machine.until_asleep()
    assert machine.logind.put_down == [("suspend", "released")]


async def test_logind_may_be_restarted_and_gets_its_locks_again(machine: Machine) -> None:
    await machine.start()
    await machine.until_locked()
    machine.logind.disconnect()
    assert machine.logind.locks == []
    await machine.logind.connect()
    await machine.until_locked()
    await machine.logind.close_lid()
    assert machine.expert.saves == 1


async def test_dbus_that_is_lost_during_sleep_does_not_keep_the_node_silent(machine: Machine) -> None:
    await machine.start()
    await machine.until_locked()
    await machine.logind.close_lid()
    await machine.heard.until(lambda: machine.states[-1] == "offline", "goodbye")
    machine.logind.disconnect()
    await machine.dbus.kill()
    machine.logind._set("PreparingForSleep", "b", value=False)  # the signal of the end is lost
    await machine.dbus.start()
    await machine.logind.connect()
    await machine.heard.until_power("awake", 2)
    await machine.heard.until(lambda: machine.heard.last("presence").state == "online", "online")


async def test_a_sleep_that_never_comes_is_given_up(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controller, "PATIENCE_SECONDS", 0.5)
    await machine.start()
    await machine.until_locked()
    await machine.logind.announce("suspend", starts=True)
    await machine.heard.until(lambda: machine.states[-1] == "offline", "goodbye")
    machine.logind._set("PreparingForSleep", "b", value=False)
    await machine.heard.until_power("awake", 2)


async def test_a_shutdown_that_is_called_off_brings_the_node_back(machine: Machine) -> None:
    await machine.start()
    await machine.until_locked()
    await machine.logind.announce("poweroff", starts=True)
    await machine.heard.until(lambda: machine.states[-2:] == ["off", "offline"], "off")
    await machine.logind.announce("poweroff", starts=False)
    await machine.heard.until_power("awake", 2)
    await machine.until_locked()


async def test_signals_of_others_are_not_believed(machine: Machine) -> None:
    await machine.start()
    await machine.until_locked()
    async with FakeLogind(machine.dbus.address) as impostor:  # its name is taken, so it is only queued for it
        await impostor.announce("suspend", starts=True)
        await asyncio.sleep(0.3)
    assert machine.heard.last("power").state == "awake"
    assert machine.expert.saves == 0


async def test_a_sleep_that_nobody_announced_is_noticed_by_the_clocks(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    class JumpingClock(Clock):
        slept = 0.0

        def boottime(self) -> float:
            return super().boottime() + self.slept

    monkeypatch.setattr(daemon, "Clock", JumpingClock)
    await machine.start()
    machine.heard.journal.clear()
    JumpingClock.slept = 3600.0
    await machine.heard.until(
        lambda: any(power.reason == "it had slept for 3600 s, unannounced" for power in machine.heard.all("power")),
        "the sleep",
    )
    assert machine.logind.put_down == []


async def test_a_request_at_the_last_moment_is_answered(machine: Machine) -> None:
    machine.expert.busy_after_saving = True
    await machine.start()
    machine.policy.idle_after = 0
    machine.expert.is_idle(100)
    reason = "a request came when it was about to sleep"
    await machine.heard.until(lambda: any(power.reason == reason for power in machine.heard.all("power")), reason)
    assert machine.logind.calls.count("Suspend") == 0
    assert machine.states[:4] == ["online", "awake", "going_to_sleep", "awake"]
    machine.expert.busy_after_saving = False
    machine.expert.is_idle(100)
    await machine.until_asleep()


async def test_a_machine_that_holds_layers_for_another_stays_awake(machine: Machine) -> None:
    machine.expert.health["clients"] = 1
    await machine.start()
    machine.policy.idle_after = 0
    blocker = "an expert on another machine has layers of its model here"
    await machine.heard.until(lambda: machine.heard.last("power").blockers == (blocker,), blocker)
    assert machine.logind.calls.count("Suspend") == 0


async def test_the_machines_own_clock_wakes_it(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alarm = tmp_path / "wakealarm"
    alarm.write_text("")
    monkeypatch.setattr(daemon, "AlarmClock", lambda: AlarmClock(alarm))
    machine.options = replace(QUICK, without_wake=False)  # nothing else would wake it
    machine.policy.wake_at = time.time() + 7200
    await machine.start()
    machine.policy.idle_after = 0
    await machine.until_asleep()
    machine.policy.idle_after = 1000
    assert alarm.read_text().startswith("+7")
    await machine.heard.until(lambda: machine.states[-1] == "offline", "goodbye")
    assert machine.heard.last("power").next_wake == machine.policy.wake_at
    await machine.logind.wake()
    await machine.heard.until_power("awake", 2)
    assert alarm.read_text() == "0"


async def test_without_a_lock_that_delays_it_the_node_does_not_put_itself_to_sleep(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_: Message) -> Answer:
        raise ServiceError("org.freedesktop.DBus.Error.AccessDenied", "Permission denied")

    machine.logind.methods[PATH, "Inhibit"] = refuse
    await machine.start()
    await machine.heard.until(lambda: machine.logind.calls.count("Inhibit") >= 2, "two refusals")
    await asyncio.sleep(0.5)
    assert machine.logind.calls.count("Inhibit") <= 6
    said = [record.getMessage() for record in caplog.records if "no lock to" in record.getMessage()]
    assert sorted(text.partition(":")[0] for text in said) == ["no lock to delay shutdown", "no lock to delay sleep"]
    machine.policy.idle_after = 0
    blocker = "logind gives no lock that delays it: nothing would be saved, and nobody told"
    await machine.heard.until(lambda: machine.heard.last("power").blockers == (blocker,), blocker)
    assert machine.logind.calls.count("Suspend") == 0
