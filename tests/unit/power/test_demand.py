import asyncio
import json
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.power import demand_keeper
from appliance.power.demand import HOURS, MOST_EXPERTS, THRESHOLD, Demand, LocalHour, chance, empty, learn
from appliance.power.demand_keeper import DemandKeeper
from appliance.power.simulate.recording import read_recording

BERLIN = ZoneInfo("Europe/Berlin")
MONDAY = datetime(2026, 1, 5, tzinfo=BERLIN)
SEVEN = 7
"""Monday's eighth hour."""


def live(demand: Demand, days: int, *asked: tuple[str, int, int], first: datetime = MONDAY) -> float:
    """Look at the clock every ten minutes; ask experts each weekday at some hour and minute. Return the time after."""
    now = first.timestamp()
    end = (first + timedelta(days=days)).timestamp()
    while now < end:
        demand.advance(now)
        local = datetime.fromtimestamp(now, BERLIN)
        for expert, hour, minute in asked:
            if local.weekday() < 5 and (local.hour, local.minute) == (hour, minute):
                demand.note(expert, now)
        now += 600
    return now


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN).timestamp()


def test_a_habit_is_learned_and_only_where_it_is() -> None:
    demand = Demand(BERLIN)
    after = live(demand, 28, ("small", 7, 10))
    monday = datetime.fromtimestamp(after, BERLIN).replace(hour=7, minute=0)
    assert demand.wanted(monday.timestamp())["small"] > 0.7
    assert demand.wanted((monday + timedelta(hours=1)).timestamp())["small"] < 0.15
    assert demand.wanted((monday - timedelta(hours=1)).timestamp())["small"] < 0.15
    assert demand.wanted((monday + timedelta(days=5)).timestamp())["small"] < 0.05
    assert np.argmax(demand.chances("small")) % 24 == 7


def test_a_few_requests_wake_nobody() -> None:
    demand = Demand(BERLIN)
    demand.note("small", MONDAY.timestamp() + 7.2 * 3600)
    after = live(demand, 7, first=MONDAY + timedelta(hours=8))
    assert max(demand.wanted(after - 60 + hour * 3600)["small"] for hour in range(168)) < THRESHOLD / 1.5
    demand.note("small", MONDAY.timestamp() + 7 * 86_400 + 8 * 3600)
    assert demand.wanted(MONDAY.timestamp() + 14 * 86_400 + 7.5 * 3600)["small"] < THRESHOLD


def test_what_is_over_is_forgotten() -> None:
    demand = Demand(BERLIN)
    after = live(demand, 70, ("small", 7, 10))
    habit = datetime.fromtimestamp(after, BERLIN).replace(hour=7, minute=30)
    before = demand.wanted(habit.timestamp())["small"]
    live(demand, 42, first=datetime.fromtimestamp(after, BERLIN))
    assert demand.wanted((habit + timedelta(days=42)).timestamp())["small"] < before / 1.9


def test_a_conversation_of_ten_is_one_reason() -> None:
    one, ten = Demand(BERLIN), Demand(BERLIN)
    for demand, requests in ((one, 1), (ten, 10)):
        for request in range(requests):
            demand.note("small", MONDAY.timestamp() + 7 * 3600 + request)
        live(demand, 1, first=MONDAY + timedelta(hours=8))
    assert np.array_equal(one.chances("small"), ten.chances("small"))


def test_a_habit_stays_where_it_is_when_the_clocks_change() -> None:
    demand = Demand(BERLIN)
    first = datetime(2026, 2, 16, tzinfo=BERLIN)
    live(demand, 42, ("small", 7, 10), first=first)  # until the 30th of March, a day after the change
    assert demand.wanted(at("2026-03-30T07:10"))["small"] > 0.7
    assert demand.wanted(at("2026-03-30T06:10"))["small"] < 0.15
    assert demand.wanted(at("2026-03-30T08:10"))["small"] < 0.15


@pytest.mark.parametrize(
    ("zone", "moment", "start", "length", "of_week"),
    [
        ("Europe/Berlin", "2026-03-29T01:30+01:00", "2026-03-29T01:00+01:00", 3600, 145),
        ("Europe/Berlin", "2026-03-29T03:30+02:00", "2026-03-29T03:00+02:00", 3600, 147),
        ("Europe/Berlin", "2026-10-25T02:30+02:00", "2026-10-25T02:00+02:00", 3600, 146),
        ("Europe/Berlin", "2026-10-25T02:30+01:00", "2026-10-25T02:00+01:00", 3600, 146),
        ("Asia/Kathmandu", "2026-11-02T00:10+05:45", "2026-11-02T00:00+05:45", 3600, 0),
        ("Australia/Lord_Howe", "2026-04-05T01:45+11:00", "2026-04-05T01:00+11:00", 3600, 145),
        ("Australia/Lord_Howe", "2026-04-05T01:45+10:30", "2026-04-05T01:30+10:30", 1800, 145),
        ("Australia/Lord_Howe", "2026-10-04T02:45+11:00", "2026-10-04T02:30+11:00", 1800, 146),
    ],
)
def test_hours_when_the_clocks_change(zone: str, moment: str, start: str, length: int, of_week: int) -> None:
    hour = LocalHour.at(datetime.fromisoformat(moment).timestamp(), ZoneInfo(zone))
    assert hour.start == datetime.fromisoformat(start).timestamp()
    assert hour.end - hour.start == length
    assert hour.of_week == of_week


@settings(deadline=None)
@given(st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kathmandu", "Australia/Lord_Howe"]), st.floats(1.6e9, 2.1e9))
def test_hours_follow_one_another_without_gaps(zone: str, now: float) -> None:
    hour = LocalHour.at(now, ZoneInfo(zone))
    assert hour.start <= now < hour.end
    assert hour.end - hour.start <= 3600.001
    following = LocalHour.at(hour.end, ZoneInfo(zone))
    assert abs(following.start - hour.end) < 1e-3


def test_hours_in_which_the_hub_was_not_there_teach_nothing() -> None:
    demand = Demand(BERLIN)
    after = live(demand, 28, ("small", 7, 10))
    before = demand.chances("small")
    demand.advance(after + 20 * 86_400)  # a holiday without the hub
    after_gap = demand.chances("small")
    assert np.abs(after_gap - before).max() < 0.01, "at most the hour in which it ended"


def test_a_clock_that_jumps_does_no_harm() -> None:
    demand = Demand(BERLIN)
    after = live(demand, 28, ("small", 7, 10))
    before = demand.chances("small")
    for jump in (-86_400 * 400, 86_400 * 400, -30, 0, 30):
        demand.advance(after + jump)
        demand.note("small", after + jump)
    assert np.abs(demand.chances("small") - before).max() < 0.35
    assert (demand.chances("small") >= 0).all()
    assert (demand.chances("small") <= 1).all()


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(-5000, 200_000), st.booleans()), max_size=60))
def test_chances_are_chances_whatever_the_clock_does(steps: list[tuple[float, bool]]) -> None:
    demand = Demand(BERLIN)
    now = MONDAY.timestamp()
    for step, asked in steps:
        now = max(now + step, 0.0)
        if asked:
            demand.note("small", now)
        else:
            demand.advance(now)
    if demand.experts:
        chances = demand.chances("small")
        assert ((chances > 0) & (chances < 1)).all()
    again = Demand.restored(demand.state().model_validate_json(demand.state().model_dump_json()), BERLIN)
    assert again.experts == demand.experts
    assert np.allclose(again.chances("small"), demand.chances("small"), atol=1e-3)


def test_rows_are_independent() -> None:
    active, seen = empty(3), empty(3)
    for _ in range(10):
        learn(active, seen, SEVEN, np.array([0.0, 1.0, 1.0]))
    one_active, one_seen = empty(), empty()
    for _ in range(10):
        learn(one_active, one_seen, SEVEN, 1.0)
    assert active.shape == (3, HOURS)
    chances = chance(active, seen, SEVEN)
    assert chances[0] < 0.02 < chances[1]
    assert chances[1] == chances[2] == pytest.approx(float(chance(one_active, one_seen, SEVEN)))


def test_names_from_the_bus_can_not_fill_the_memory() -> None:
    demand = Demand(BERLIN)
    for number in range(MOST_EXPERTS + 5):
        demand.note(f"expert-{number}", 1.7e9)
    assert len(demand.experts) == MOST_EXPERTS
    demand.forget("expert-0")
    assert "expert-0" not in demand.experts


# ---- on disk


def test_it_is_kept_and_read_again(tmp_path: Path) -> None:
    keeper = DemandKeeper(tmp_path, BERLIN)
    after = live(keeper.demand, 28, ("small", 7, 10))
    keeper.note("small", after)
    keeper.save()
    again = DemandKeeper(tmp_path, BERLIN)
    assert again.wanted(after + 7 * 3600) == pytest.approx(keeper.wanted(after + 7 * 3600), abs=1e-3)
    again.demand.advance(after + 600)  # the hour that was begun before the restart is not lost
    for name in ("demand.json", "requests.csv"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600


def test_a_damaged_file_is_put_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = json.loads(Demand(BERLIN).state().model_dump_json())
    for number, content in enumerate(
        (
            b"\0" * 100,
            b'{"version": 1',
            json.dumps(state | {"version": 2}).encode(),
            json.dumps(state | {"experts": {"small": {"active": [1.0] * HOURS, "seen": [0.0] * HOURS}}}).encode(),
            json.dumps(state | {"experts": {"small": {"active": [1.0], "seen": [2.0]}}}).encode(),
        ),
        1,
    ):
        (tmp_path / "demand.json").write_bytes(content)
        assert DemandKeeper(tmp_path, BERLIN).demand.experts == ()
        assert (tmp_path / "demand.broken").read_bytes() == content
        assert len(caplog.records) == number


def test_the_list_of_requests_is_what_the_simulator_reads(tmp_path: Path) -> None:
    keeper = DemandKeeper(tmp_path, BERLIN)
    keeper.note("small", 1_764_338_400.14)
    keeper.save()
    with (tmp_path / "requests.csv").open("ab") as file:
        file.write(b"176433")  # the power went in the middle of a line
    keeper.note("big", 1_764_338_500.0)
    keeper.note("odd,name", 1_764_338_600.0)
    keeper.save()
    assert (tmp_path / "requests.csv").read_text() == "time,expert\n1764338400.1,small\n1764338500.0,big\n"
    assert [recorded.expert for recorded in read_recording(tmp_path / "requests.csv")] == ["big", "small"]


def test_a_list_that_ends_in_zeros_is_mended(tmp_path: Path) -> None:
    (tmp_path / "requests.csv").write_bytes(b"time,expert\n1764338400.1,small\n" + b"\0" * 4096)
    keeper = DemandKeeper(tmp_path, BERLIN)
    keeper.note("small", 1_764_338_500.0)
    keeper.save()
    assert (tmp_path / "requests.csv").read_text() == "time,expert\n1764338400.1,small\n1764338500.0,small\n"


def test_a_long_list_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demand_keeper, "MOST_LIST_BYTES", 100)
    keeper = DemandKeeper(tmp_path, BERLIN)
    for number in range(12):
        keeper.note("small", 1_764_338_400.0 + number)
        keeper.save()
    sizes = {path.name: path.stat().st_size for path in tmp_path.glob("requests*.csv")}
    assert sizes.keys() == {"requests.csv", "requests.1.csv"}
    assert max(sizes.values()) <= 100


async def test_it_saves_in_the_end_and_learns_without_requests(tmp_path: Path) -> None:
    moments = iter([MONDAY.timestamp(), *[MONDAY.timestamp() + 4000] * 10])
    keeper = DemandKeeper(tmp_path, BERLIN, wall=lambda: next(moments))
    task = asyncio.create_task(keeper.run())
    await asyncio.sleep(0.01)
    keeper.note("small", MONDAY.timestamp() + 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert json.loads((tmp_path / "demand.json").read_text())["asked"] == ["small"]


def test_a_folder_that_can_not_be_written_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "power").write_text("no folder")
    DemandKeeper(tmp_path / "power", BERLIN).save()
    assert "can't be kept" in caplog.text
