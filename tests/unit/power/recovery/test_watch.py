"""Who is missed, how far the ladder is climbed, and what is said at its end."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from appliance.bus.waking_messages import RepairNotice
from appliance.power.errors import RungError
from appliance.power.nodes import KnownNode
from appliance.power.recovery import watch as watch_module
from appliance.power.recovery.ladder import Ladder
from appliance.power.recovery.ledger import Begun, Case, Ledger
from appliance.power.recovery.rungs import Done, RungName
from appliance.power.recovery.watch import Objections, RecoveryWatch
from appliance.settings.waking import RecoverySettings
from tests.unit.power.wake.house import House


class PlayedRung:
    """Does what a test says."""

    def __init__(self, name: RungName, *, switches_power: bool) -> None:
        self.name = name
        self.switches_power = switches_power
        self.patience = 0.05
        self.acted: list[str] = []
        self.then: Callable[[str], Any] | None = None
        self.fails = ""
        self.set_up = True

    def serves(self, node: str) -> bool:
        return self.set_up and bool(node)

    async def act(self, node: KnownNode) -> Done:
        self.acted.append(node.name)
        if self.then is not None:
            await self.then(node.name)
        if self.fails:
            raise RungError(self.fails)
        return Done(f"{self.name} was tried")


class Bus:
    connected = True

    def __init__(self) -> None:
        self.notices: dict[str, RepairNotice] = {}

    async def keep(self, _topic: object, message: RepairNotice, *, node: str) -> None:
        self.notices[node] = message

    async def withdraw(self, _topic: object, *, node: str) -> None:
        self.notices.pop(node, None)


class Recovery:
    """The parts of recovery in a house; rungs are played."""

    def __init__(self, house: House, folder: Path, **recovery: Any) -> None:
        self.house = house
        self.settings = RecoverySettings.model_validate({"grace": 0.05, "again_after": 3600, **recovery})
        self.packet = PlayedRung("magic_packet", switches_power=False)
        self.ipmi = PlayedRung("ipmi", switches_power=True)
        self.plug = PlayedRung("plug", switches_power=True)
        self.rungs = [self.packet, self.ipmi, self.plug]
        self.bus = Bus()
        self.answers_at: str | None = None
        self.updating: set[str] = set()
        self.ledger = Ledger(folder / "recovery.json")
        self.ledger.load()
        wall = lambda: house.now  # noqa: E731 - the same for all parts
        self.objections = Objections(
            book=house.book,
            ledger=self.ledger,
            settings=self.settings,
            probe=self._probe,
            updating=self.updating.__contains__,
            connected=lambda: self.bus.connected,
            wall=wall,
        )
        ladder = Ladder(
            rungs=self.rungs,
            book=house.book,
            ledger=self.ledger,
            audit=house.audit,
            metrics=house.metrics,
            objection=self.objections,
            wall=wall,
        )
        self.watch = RecoveryWatch(
            bus=self.bus,  # type: ignore[arg-type]
            book=house.book,
            ledger=self.ledger,
            ladder=ladder,
            settings=self.settings,
            probe=self._probe,
            audit=house.audit,
            metrics=house.metrics,
            wall=wall,
        )

    async def _probe(self, _node: KnownNode) -> str | None:
        return self.answers_at

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with self.watch:
            task = asyncio.create_task(self.watch.run())
            try:
                yield
                assert not task.done(), task.exception()
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def until(self, condition: Callable[[], object], what: str) -> None:
        try:
            async with asyncio.timeout(10):
                while not condition():
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"{what}; there is {self.bus.notices}, {self.house.entries()}") from None

    def steps(self, node: str = "attic") -> list[tuple[str, str]]:
        return [(step.rung, step.outcome) for step in self.bus.notices[node].steps]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(watch_module, "SETTLING_SECONDS", 0.01)


@pytest.fixture
def recovery(house: House, tmp_path: Path) -> Recovery:
    return Recovery(house, tmp_path)


async def lose(house: House, node: str = "attic") -> None:
    await house.awake(node, "large")
    await house.presence(node, "offline")


async def test_one_that_is_lost_is_tried_rung_by_rung_and_then_said_to_need_repair(recovery: Recovery) -> None:
    await lose(recovery.house)
    recovery.ipmi.fails = "ipmitool chassis power status ended with 1: no route"
    async with recovery.running():
        await recovery.until(lambda: recovery.bus.notices, "a notice")
        await asyncio.sleep(0.3)
    notice = recovery.bus.notices["attic"]
    assert notice.problem == "lost"
    assert notice.summary == (
        "attic is gone without goodbye, and could not be brought back. "
        "Look whether it has power and its network cable. If it is gone for good, run rouse power forget attic."
    )
    assert recovery.steps() == [("magic_packet", "no_return"), ("ipmi", "failed"), ("plug", "no_return")]
    assert [step.evidence for step in notice.steps] == [
        "magic_packet was tried; not back within 0.05 s",
        "ipmitool chassis power status ended with 1: no route",
        "plug was tried; not back within 0.05 s",
    ]
    assert notice.next_attempt == recovery.house.now + 3600
    assert recovery.packet.acted == recovery.ipmi.acted == recovery.plug.acted == ["attic"]
    told = [(entry.what, entry.outcome) for entry in recovery.house.entries()]
    assert told == [
        ("recovery.magic_packet", "no_return"),
        ("recovery.ipmi", "begun"),
        ("recovery.ipmi", "failed"),
        ("recovery.plug", "begun"),
        ("recovery.plug", "no_return"),
        ("recovery", "failed"),
    ]
    assert recovery.house.count("rouse_power_missing_nodes") == 1
    assert recovery.house.count("rouse_power_recovery_steps_total", node="attic", rung="plug", outcome="no_return") == 1


async def test_its_return_ends_the_ladder_and_clears_the_notice(recovery: Recovery) -> None:
    house = recovery.house
    await lose(house)
    async with recovery.running():
        await recovery.until(lambda: recovery.bus.notices, "a notice")
        await house.awake("attic")
        await recovery.until(lambda: not recovery.bus.notices, "no notice")
    case = recovery.ledger.of("attic")
    assert (case.notice, case.failures, case.begun) == (None, 0, None)
    assert len(case.switched) == 2
    assert house.count("rouse_power_missing_nodes") == 0


async def test_one_that_comes_back_within_the_grace_is_not_touched(house: House, tmp_path: Path) -> None:
    recovery = Recovery(house, tmp_path, grace=30)
    await lose(house)
    async with recovery.running():
        await asyncio.sleep(0.2)
        await house.awake("attic")
    assert recovery.packet.acted == []


async def test_one_that_sleeps_or_was_stopped_is_not_missed(recovery: Recovery) -> None:
    await recovery.house.asleep("attic", "large")
    async with recovery.running():
        await asyncio.sleep(0.3)
    assert recovery.packet.acted == []


async def test_a_rung_that_is_at_work_is_stopped_when_the_node_is_back(recovery: Recovery) -> None:
    house = recovery.house
    await lose(house)

    async def back_and_hang(node: str) -> None:
        await house.awake(node)
        await asyncio.sleep(60)

    recovery.packet.then = back_and_hang
    async with recovery.running():
        await recovery.until(lambda: any(entry.what == "recovery" for entry in house.entries()), "the end")
    assert recovery.ipmi.acted == []
    assert [(entry.what, entry.outcome) for entry in house.entries()] == [
        ("recovery.magic_packet", "returned"),
        ("recovery", "returned"),
    ]
    assert recovery.bus.notices == {}


async def test_one_that_did_not_wake_needs_no_more_packets(recovery: Recovery) -> None:
    await recovery.house.asleep("attic")
    async with recovery.running():
        recovery.watch.did_not_wake("attic", "attic does not wake: 6 packets")
        recovery.watch.did_not_wake("attic", "again")
        await recovery.until(lambda: recovery.bus.notices, "a notice")
        assert recovery.packet.acted == []
        assert recovery.steps() == [("magic_packet", "no_return"), ("ipmi", "no_return"), ("plug", "no_return")]
        assert recovery.bus.notices["attic"].problem == "did_not_wake"
        assert recovery.bus.notices["attic"].next_attempt is None
        recovery.watch.did_not_wake("attic", "and again, but too soon")
        await asyncio.sleep(0.2)
    assert recovery.ipmi.acted == ["attic"]


@pytest.mark.parametrize(
    ("why", "sentence"),
    [
        ("broker", "the hub has no broker, and would not hear it"),
        ("off", "somebody wants it to stay off"),
        ("update", "an update is being installed on it"),
        ("limit", "its power was switched 3 times in 24 hours, which is the limit"),
        ("online", "it is on the bus"),
        ("answers", "it is on: it answers at http://attic/health"),
    ],
)
async def test_power_is_not_switched(recovery: Recovery, why: str, sentence: str) -> None:
    house = recovery.house
    await lose(house)
    if why == "broker":
        recovery.bus.connected = False
    elif why == "off":
        house.book.keep_off("attic", None)
    elif why == "update":
        recovery.updating.add("attic")
    elif why == "limit":
        now = house.now
        recovery.ledger.write("attic", Case(switched=(now - 86_000, now - 10, now)), now)
    elif why == "online":
        await house.presence("attic", "online")
    else:
        recovery.answers_at = "http://attic/health"
    node = house.book.get("attic")
    assert node is not None
    assert await recovery.objections(node) == sentence


async def test_the_limit_holds_over_days_and_restarts(house: House, tmp_path: Path) -> None:
    acted = []
    await lose(house)
    for _ in range(8):
        recovery = Recovery(house, tmp_path, cycles_per_day=3, again_after=1)
        async with recovery.running():
            before = recovery.ledger.of("attic").failures
            await recovery.until(lambda: recovery.ledger.of("attic").failures > before, "a ladder's end")  # noqa: B023
        acted += recovery.ipmi.acted + recovery.plug.acted
        house.now += 600
    assert len(acted) == 3
    assert ("plug", "refused") in recovery.steps()
    house.now += 86_400
    recovery = Recovery(house, tmp_path, cycles_per_day=3)
    async with recovery.running():
        await recovery.until(lambda: recovery.ipmi.acted, "a new day")


async def test_ladders_that_fail_come_ever_less_often(house: House, tmp_path: Path) -> None:
    recovery = Recovery(house, tmp_path, again_after=100)
    await lose(house)
    pauses = []
    async with recovery.running():
        for number in range(1, 14):
            await recovery.until(lambda: recovery.ledger.of("attic").failures == number, "a failure")  # noqa: B023
            pauses.append(recovery.ledger.of("attic").not_before - house.now)
            house.now = recovery.ledger.of("attic").not_before + 1
            house.book._note(remember=False)
    assert pauses[:4] == [100, 200, 400, 800]
    assert pauses[-1] == 86_400


async def test_one_that_answers_but_is_not_on_the_bus_is_not_touched(recovery: Recovery) -> None:
    await lose(recovery.house)
    recovery.answers_at = "http://attic/health"
    async with recovery.running():
        await recovery.until(lambda: recovery.bus.notices, "a notice")
    notice = recovery.bus.notices["attic"]
    assert notice.problem == "unreachable"
    assert notice.summary == ("attic is on and answers at http://attic/health, but is not on the bus. Look at its log.")
    assert recovery.packet.acted == recovery.ipmi.acted == []


async def test_when_every_node_is_missing_at_once_no_power_is_switched(recovery: Recovery) -> None:
    await lose(recovery.house, "attic")
    await lose(recovery.house, "cellar")
    async with recovery.running():
        await recovery.until(lambda: len(recovery.bus.notices) == 2, "two notices")
    assert sorted(recovery.packet.acted) == ["attic", "cellar"]
    assert recovery.ipmi.acted == recovery.plug.acted == []
    assert recovery.steps()[1:] == [("ipmi", "refused"), ("plug", "refused")]
    evidence = recovery.bus.notices["attic"].steps[1].evidence
    assert evidence == "every node is missing at once, which looks like the network or the mains"


async def test_one_of_several_is_recovered(recovery: Recovery) -> None:
    await lose(recovery.house, "attic")
    await recovery.house.awake("cellar")
    async with recovery.running():
        await recovery.until(lambda: recovery.bus.notices, "a notice")
    assert recovery.ipmi.acted == ["attic"]


async def test_a_person_may_have_one_recovered_beyond_the_limit_but_not_one_that_is_there(
    house: House, tmp_path: Path
) -> None:
    recovery = Recovery(house, tmp_path, cycles_per_day=0, grace=1000)
    await lose(house)
    await house.awake("cellar")
    async with recovery.running():
        recovery.watch.recover("cellar", "a person")
        recovery.watch.recover("stranger", "a person")
        recovery.watch.recover("attic", "a person")
        await recovery.until(lambda: recovery.bus.notices, "a notice")
    assert recovery.ipmi.acted == ["attic"]


async def test_it_can_be_switched_off(house: House, tmp_path: Path) -> None:
    recovery = Recovery(house, tmp_path, enabled=False)
    await lose(house)
    async with recovery.running():
        recovery.watch.did_not_wake("attic", "6 packets")
        await asyncio.sleep(0.2)
    assert recovery.packet.acted == []


async def test_nobody_is_missed_while_the_broker_is_away(recovery: Recovery) -> None:
    recovery.bus.connected = False
    await lose(recovery.house)
    async with recovery.running():
        recovery.watch.did_not_wake("attic", "6 packets")
        await asyncio.sleep(0.3)
        assert recovery.packet.acted == []
        recovery.bus.connected = True
        await recovery.until(lambda: recovery.packet.acted, "a packet")


async def test_what_a_killed_hub_was_doing_is_not_done_again(house: House, tmp_path: Path) -> None:
    await lose(house)
    begun = Begun(problem="lost", since=house.now, acting="ipmi", acting_since=house.now)
    ledger = Ledger(tmp_path / "recovery.json")
    ledger.write("attic", Case(switched=(house.now,), begun=begun), house.now)
    recovery = Recovery(house, tmp_path)
    async with recovery.running():
        await recovery.until(lambda: recovery.bus.notices, "a notice")
    assert recovery.ipmi.acted == []
    assert recovery.plug.acted == ["attic"]
    assert recovery.steps()[0] == ("ipmi", "no_return")
    assert recovery.bus.notices["attic"].steps[0].evidence == "the hub was stopped while this was done"


async def test_a_notice_outlives_the_hub(house: House, tmp_path: Path) -> None:
    await lose(house)
    recovery = Recovery(house, tmp_path)
    async with recovery.running():
        await recovery.until(lambda: recovery.bus.notices, "a notice")
    again = Recovery(house, tmp_path)
    async with again.running():
        await again.until(lambda: again.bus.notices, "the same notice")
        assert again.bus.notices == recovery.bus.notices
        await house.awake("attic")
        await again.until(lambda: not again.bus.notices, "no notice")


async def test_without_a_disk_no_power_is_switched(recovery: Recovery, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    await lose(recovery.house)
    monkeypatch.setattr(recovery.ledger, "write", broken)
    async with recovery.running():
        await recovery.until(lambda: recovery.bus.notices, "a notice")
    assert recovery.ipmi.acted == []
    assert recovery.steps()[1] == ("ipmi", "refused")


@pytest.mark.parametrize("content", [b"", b"{", b'{"cases": {"attic": {"switched": "often"}}}'])
async def test_a_ledger_that_cannot_be_read_is_put_aside(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "recovery.json"
    path.write_bytes(content)
    ledger = Ledger(path)
    ledger.load()
    assert ledger.cases == {}
    assert path.with_suffix(".unreadable").read_bytes() == content
