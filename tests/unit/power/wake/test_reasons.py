"""Commands, hints, times of day and forecasts, as far as they wake somebody."""

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from appliance.bus.power_messages import PowerCommand
from appliance.bus.waking_messages import WakeHint
from appliance.power.wake.commands import QUIET_SECONDS, Commands
from appliance.power.wake.experts import ExpertWaker
from appliance.power.wake.forecast import NoForecast
from appliance.power.wake.foresight import STAY_SECONDS, Foresight
from appliance.power.wake.hints import Hints
from tests.unit.power.wake.house import House

ZONE = ZoneInfo("Europe/Berlin")


class Bus:
    """Remembers what is sent to nodes."""

    def __init__(self, commands: Commands) -> None:
        self.sent: list[tuple[str, PowerCommand]] = []
        self._commands = commands

    async def publish(self, _topic: object, message: PowerCommand, *, node: str) -> None:
        self.sent.append((node, message))
        await self._commands.take(message, {"node": node})


class Fixed:
    """A forecast that a test sets."""

    def __init__(self) -> None:
        self.likely: dict[str, float] = {}
        self.asked: list[float] = []

    def note(self, expert: str, now: float) -> None:
        raise AssertionError((expert, now))

    def wanted(self, now: float) -> Mapping[str, float]:
        self.asked.append(now)
        return self.likely


class Reasons:
    """All that may wake, in one house."""

    def __init__(self, house: House, *, agents: Mapping[str, tuple[str, ...]] | None = None) -> None:
        self.house = house
        self.recovered: list[str] = []
        self.commands = Commands(
            book=house.book,
            waker=house.waker,
            recover=lambda node, _reason: self.recovered.append(node),
            wall=lambda: house.now,
        )
        self.experts = ExpertWaker(book=house.book, waker=house.waker, commands=self.commands)
        self.hints = Hints(
            agents=agents or {"home": ("large",), "tutor": ("maths",)}, experts=self.experts, metrics=house.metrics
        )
        self.forecast = Fixed()
        self.bus = Bus(self.commands)
        self.foresight = Foresight(
            settings=house.settings,
            zone=ZONE,
            bus=self.bus,  # type: ignore[arg-type]
            waker=house.waker,
            experts=self.experts,
            commands=self.commands,
            forecast=self.forecast,
            wall=lambda: house.now,
        )
        self._ids = 0

    async def command(self, action: Any, node: str = "attic", **more: Any) -> None:
        self._ids += 1
        await self.commands.take(
            PowerCommand.model_validate({"id": f"command-{self._ids}", "action": action, **more}), {"node": node}
        )

    def waking(self) -> set[str]:
        return {node.name for node in self.house.book.all if self.house.waker.is_waking(node.name)}


@pytest.fixture
def reasons(house: House) -> Reasons:
    return Reasons(house)


async def test_a_command_wakes_once(reasons: Reasons) -> None:
    house = reasons.house
    await house.asleep("attic")
    async with house.waker:
        command = PowerCommand(id="command-x", action="wake", reason="I want it")
        await reasons.commands.take(command, {"node": "attic"})
        await house.card.until(1)
        await house.awake("attic")
        while reasons.waking():
            await asyncio.sleep(0.01)
        await house.asleep("attic")
        await reasons.commands.take(command, {"node": "attic"})
        assert not reasons.waking()
    assert [(entry.who, entry.detail.partition(":")[0]) for entry in house.entries()] == [("command", "I want it")]


async def test_stay_off_holds_until_somebody_wants_it_back(reasons: Reasons) -> None:
    house = reasons.house
    await house.asleep("attic", "large")
    async with house.waker:
        await reasons.command("stay_off")
        assert not house.waker.can_wake("attic")
        await reasons.command("sleep")
        await reasons.command("stay_awake")
        assert house.waker.can_wake("attic")
        await reasons.command("stay_off", until=house.now + 60)
        assert not house.waker.can_wake("attic")
        await reasons.command("wake")
        assert reasons.waking() == {"attic"}


async def test_recovery_is_asked_for_by_command(reasons: Reasons) -> None:
    await reasons.house.asleep("attic")
    await reasons.command("recover")
    await reasons.command("recover", node="stranger")
    assert reasons.recovered == ["attic"]


async def test_a_hint_wakes_one_node_for_each_expert_of_the_agent(reasons: Reasons) -> None:
    house = reasons.house
    await house.asleep("attic", "large")
    await house.asleep("barn", "large")
    await house.asleep("cellar", "maths")
    async with house.waker:
        await reasons.hints.take(WakeHint(kind="speech", agent="home", area="Kitchen"), {})
        assert reasons.waking() == {"attic"}
        await reasons.hints.take(WakeHint(kind="speech", agent="home"), {})
        assert reasons.waking() == {"attic"}
        await reasons.hints.take(WakeHint(kind="arrival"), {})
        assert reasons.waking() == {"attic", "cellar"}
    assert house.count("rouse_power_hints_total", kind="speech") == 2


async def test_a_hint_of_an_expert_that_is_awake_somewhere_wakes_nobody(reasons: Reasons) -> None:
    house = reasons.house
    await house.awake("attic", "large")
    await house.asleep("barn", "large")
    async with house.waker:
        await reasons.hints.take(WakeHint(kind="other", expert="large"), {})
        await reasons.hints.take(WakeHint(kind="other", agent="nobody"), {})
        await reasons.hints.take(None, {})
        assert reasons.waking() == set()


async def test_a_guess_does_not_wake_what_somebody_put_to_sleep(reasons: Reasons) -> None:
    house = reasons.house
    await house.asleep("attic", "large")
    async with house.waker:
        await reasons.command("sleep")
        await reasons.hints.take(WakeHint(kind="speech", agent="home"), {})
        assert reasons.waking() == set()
        house.now += QUIET_SECONDS + 1
        await reasons.hints.take(WakeHint(kind="speech", agent="home"), {})
        assert reasons.waking() == {"attic"}


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZONE).timestamp()


async def test_a_schedule_wakes_at_its_time(make: Callable[..., House]) -> None:
    house = make(
        schedules={
            "morning": {"at": ["weekdays 06:30"], "experts": ["large"]},
            "sunday": {"at": ["sun 09:00-11:00"], "nodes": ["cellar"]},
        }
    )
    reasons = Reasons(house)
    await house.asleep("attic", "large")
    await house.asleep("cellar", "maths")
    async with house.waker:
        house.now = at("2026-11-27T06:29:50")  # a Friday
        await reasons.foresight.look()
        assert reasons.waking() == set()
        house.now = at("2026-11-27T06:30:05")
        await reasons.foresight.look()
        assert reasons.waking() == {"attic"}
        await house.awake("attic", "large")
        while reasons.waking():
            await asyncio.sleep(0.01)
        await house.asleep("attic", "large")
        for later in ("2026-11-27T06:30:25", "2026-11-28T06:30:05", "2026-11-29T08:59:59"):
            house.now = at(later)
            await reasons.foresight.look()
            assert reasons.waking() == set()
        house.now = at("2026-11-29T09:00:10")
        await reasons.foresight.look()
        assert reasons.waking() == {"cellar"}


async def test_a_time_that_passed_while_the_hub_was_away_is_obeyed_if_it_is_not_long_ago(
    make: Callable[..., House],
) -> None:
    house = make(schedules={"morning": {"at": ["daily 06:30"], "nodes": ["attic"]}})
    await house.asleep("attic")
    async with house.waker:
        house.now = at("2026-11-27T06:45:00")
        await Reasons(house).foresight.look()
        assert not house.waker.is_waking("attic")
        house.now = at("2026-11-27T06:38:00")
        await Reasons(house).foresight.look()
        assert house.waker.is_waking("attic")


async def test_a_clock_that_jumps_wakes_nobody_twice_and_is_followed(make: Callable[..., House]) -> None:
    house = make(schedules={"morning": {"at": ["daily 06:30"], "nodes": ["attic"]}})
    reasons = Reasons(house)
    await house.asleep("attic")
    async with house.waker:
        for moment in ("2030-01-01T00:00:00", "2026-11-27T06:00:00", "2026-11-27T06:20:00"):
            house.now = at(moment)
            await reasons.foresight.look()
            assert not house.waker.is_waking("attic")
        house.now = at("2026-11-27T06:30:10")
        await reasons.foresight.look()
        assert house.waker.is_waking("attic")


async def test_likely_demand_wakes_and_keeps_awake(reasons: Reasons) -> None:
    house = reasons.house
    await house.asleep("attic", "large")
    async with house.waker:
        reasons.forecast.likely = {"large": 0.49, "unknown": 1.0}
        await reasons.foresight.look()
        assert reasons.waking() == set()
        assert reasons.forecast.asked == [house.now + house.settings.forecast_ahead, house.now]
        reasons.forecast.likely = {"large": 0.5}
        await reasons.foresight.look()
        assert reasons.waking() == {"attic"}
        assert reasons.bus.sent == []
        await house.awake("attic", "large")
        await reasons.foresight.look()
        ((node, command),) = reasons.bus.sent
        assert (node, command.action, command.until) == ("attic", "stay_awake", house.now + STAY_SECONDS)
        await reasons.foresight.look()
        assert len(reasons.bus.sent) == 1
        house.now += STAY_SECONDS / 2 + 1
        await reasons.foresight.look()
        assert len(reasons.bus.sent) == 2


async def test_a_guess_does_not_overrule_a_person(reasons: Reasons) -> None:
    house = reasons.house
    await house.awake("attic", "large")
    reasons.forecast.likely = {"large": 1.0}
    async with house.waker:
        await reasons.command("stay_awake", until=house.now + 36_000)
        await reasons.foresight.look()
        assert reasons.bus.sent == []
        await reasons.command("sleep")
        await reasons.foresight.look()
        assert reasons.bus.sent == []
        await house.asleep("attic", "large")
        await reasons.foresight.look()
        assert reasons.waking() == set()


async def test_a_forecast_that_fails_ends_nothing(make: Callable[..., House], caplog: pytest.LogCaptureFixture) -> None:
    class Broken(NoForecast):
        def wanted(self, now: float) -> Mapping[str, float]:
            raise ZeroDivisionError(now)

    house = make(schedules={"morning": {"at": ["daily 06:30"], "nodes": ["attic"]}})
    reasons = Reasons(house)
    reasons.foresight._forecast = Broken()
    await house.asleep("attic")
    house.now = at("2026-11-27T06:30:10")
    async with house.waker:
        await reasons.foresight.look()
        assert house.waker.is_waking("attic")
    assert "the forecast failed" in caplog.text


async def test_a_threshold_of_one_never_looks(make: Callable[..., House]) -> None:
    reasons = Reasons(make(forecast_threshold=1.0))
    reasons.forecast.likely = {"large": 1.0}
    await reasons.foresight.look()
    assert reasons.forecast.asked == []
