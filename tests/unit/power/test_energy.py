import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.node.energy.monitor import EnergyAccount
from appliance.power.energy import MOST_DAYS, Account, AccountKeeper, EnergyState, Uptime, Watts, read_account

BERLIN = ZoneInfo("Europe/Berlin")
WATTS = Watts(idle=20.0, off=1.0)
HERE = Uptime("this-start", 1000.0)
NOW = datetime(2026, 11, 28, 12, tzinfo=BERLIN).timestamp()


class Wall:
    """A wall clock that a test sets."""

    now = NOW

    def __call__(self) -> float:
        return self.now


def account(wall: Wall | None = None) -> Account:
    return Account(watts=WATTS, zone=BERLIN, uptime=HERE, wall=wall or Wall())


def keeper(folder: Path, wall: Wall, uptime: Uptime = HERE) -> AccountKeeper:
    return AccountKeeper(folder / "energy.json", watts=WATTS, zone=BERLIN, uptime=uptime, wall=wall)


def test_it_is_what_the_monitor_wants() -> None:
    wanted: EnergyAccount = account()
    wanted.add(100, 36_000, "busy")
    assert wanted.used_kwh == pytest.approx(1.0)
    assert wanted.since == NOW
    assert wanted.baseline == "settings"


def test_sleep_saves_what_the_machine_would_have_drawn_idle() -> None:
    one = account()
    one.add(2, 36_000, "asleep")
    assert (one.used_kwh, one.saved_kwh) == pytest.approx((0.02, 0.18))
    one.add(20, 36_000, "idle")
    assert one.saved_kwh == pytest.approx(0.18), "an awake machine saves nothing"
    one.add(30, 36_000, "asleep")
    assert one.saved_kwh == pytest.approx(0.18), "and one that draws more asleep does not take back"


def test_what_an_idle_machine_draws_is_measured_where_a_meter_sees_all_of_it() -> None:
    one = account()
    one.add(3, 3600, "idle")  # RAPL sees the processor alone
    assert (one.baseline, one.idle_watts, one.measured_kwh) == ("settings", 20, 0)
    one.add(90, 3600, "busy", whole=True)
    assert str(one.baseline) == "settings", "a busy machine says nothing of an idle one"
    one.add(32, 3600, "idle", whole=True)
    one.add(28, 3600, "idle", whole=True)
    assert one.baseline == "measured"
    assert one.idle_watts == pytest.approx(30)
    one.add(2, 36_000, "asleep")
    assert one.saved_kwh == pytest.approx(0.28)
    for _ in range(24 * 10):
        one.add(10, 3600, "idle", whole=True)
    assert one.idle_watts == pytest.approx(10, abs=0.01), "a machine that was rebuilt is measured anew"


def test_each_day_has_its_share() -> None:
    wall = Wall()
    wall.now = datetime(2026, 11, 28, 6, tzinfo=BERLIN).timestamp()
    one = account(wall)
    one.add(2, 8 * 3600, "asleep")  # since 22:00
    one.add(50, 3600, "busy", whole=True)
    days = one.days
    assert list(days) == ["2026-11-27", "2026-11-28"]
    assert (days["2026-11-27"].asleep, days["2026-11-28"].asleep) == (7200, 6 * 3600)
    assert days["2026-11-28"].used == pytest.approx(2 * 6 * 3600 + 50 * 3600)
    assert days["2026-11-28"].measured == pytest.approx(50 * 3600)
    assert days["2026-11-27"].saved == pytest.approx(18 * 7200)


def test_time_until_midnight_belongs_to_the_day_that_ends() -> None:
    wall = Wall()
    wall.now = datetime(2026, 11, 28, tzinfo=BERLIN).timestamp()
    one = account(wall)
    one.add(10, 60, "idle")
    assert {name: day.idle for name, day in one.days.items()} == {"2026-11-27": 60}


def test_the_history_has_an_end() -> None:
    wall = Wall()
    one = account(wall)
    for _ in range(MOST_DAYS + 10):
        one.add(10, 60, "idle")
        wall.now += 86_400
    assert len(one.days) == MOST_DAYS
    one.add(2, 5 * 365 * 86_400, "asleep")
    assert len(one.days) == MOST_DAYS
    assert one.state().model_validate_json(one.state().model_dump_json()) == one.state()


@pytest.mark.parametrize("watts", [-1.0, float("nan"), float("inf"), 1e9])
@pytest.mark.parametrize("seconds", [60.0, 0.0, -5.0, float("nan")])
def test_what_is_wrong_with_a_reading_is_left_out(watts: float, seconds: float) -> None:
    one = account()
    one.add(watts, seconds, "idle")
    one.add(10, -5.0, "idle")
    assert one.used_kwh == 0


def test_a_wall_clock_that_jumps_costs_no_energy() -> None:
    wall = Wall()
    wall.now = 10.0  # it was not set yet when the machine started
    one = account(wall)
    one.add(100, 60, "idle")
    wall.now = NOW
    one.add(100, 60, "idle")
    wall.now = NOW - 7 * 86_400
    one.add(100, 60, "idle")
    assert one.used_kwh * 3.6e6 == pytest.approx(18_000)
    assert sum(day.used for day in one.days.values()) == pytest.approx(18_000)
    assert one.since == NOW - 60, "counting began when the clock was known"


readings = st.tuples(
    st.floats(0, 25_000) | st.floats(), st.floats(0, 1e6) | st.floats(), st.sampled_from(["busy", "idle", "asleep"])
)


@settings(deadline=None)
@given(st.lists(st.tuples(readings, st.booleans(), st.floats(-1e6, 1e6)), max_size=30))
def test_it_only_ever_grows_and_the_days_add_up(
    steps: list[tuple[tuple[float, float, EnergyState], bool, float]],
) -> None:
    wall = Wall()
    one = account(wall)
    for (watts, seconds, state), whole, jump in steps:
        before = one.used_kwh, one.saved_kwh, one.measured_kwh
        wall.now = max(86_400.0, wall.now + jump)
        one.add(watts, seconds, state, whole=whole)
        after = one.used_kwh, one.saved_kwh, one.measured_kwh
        assert all(now >= then for now, then in zip(after, before, strict=True))
        assert one.measured_kwh <= one.used_kwh * (1 + 1e-9)
    if len(one.days) < MOST_DAYS:
        assert sum(day.used for day in one.days.values()) / 3.6e6 == pytest.approx(one.used_kwh, abs=1e-6)
        assert sum(day.saved for day in one.days.values()) / 3.6e6 == pytest.approx(one.saved_kwh, abs=1e-6)


# ---- on disk


def test_it_goes_on_after_a_restart(tmp_path: Path) -> None:
    wall = Wall()
    first = keeper(tmp_path, wall)
    first.account.add(32, 3600, "idle", whole=True)
    first.save()
    wall.now += 7200
    again = keeper(tmp_path, wall)
    assert again.account.used_kwh == first.account.used_kwh
    assert (again.account.baseline, again.account.since) == ("measured", NOW)
    assert (tmp_path / "energy.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("away", "up", "counted"),
    [
        (36_000.0, 100.0, 35_900.0),
        (30 * 86_400.0, 100.0, 7 * 86_400.0),  # it was put away
        (50.0, 100.0, 0.0),  # the clock was set back
        (-86_400.0, 100.0, 0.0),
    ],
)
def test_the_time_in_which_it_was_off_is_filled_in(tmp_path: Path, away: float, up: float, counted: float) -> None:
    wall = Wall()
    keeper(tmp_path, wall).save()
    wall.now += away
    again = keeper(tmp_path, wall, Uptime("next-start", up))
    assert again.account.used_kwh * 3.6e6 == pytest.approx(counted * 1.0)
    assert again.account.saved_kwh * 3.6e6 == pytest.approx(counted * 19.0)
    assert sum(day.asleep for day in again.account.days.values()) == pytest.approx(counted)
    again.save()
    once = keeper(tmp_path, wall, Uptime("next-start", up)).account
    assert once.used_kwh == again.account.used_kwh, "it is filled in once"


def test_a_service_that_was_stopped_while_the_machine_ran_saved_nothing(tmp_path: Path) -> None:
    wall = Wall()
    keeper(tmp_path, wall).save()
    wall.now += 86_400
    assert keeper(tmp_path, wall, Uptime("this-start", 90_000)).account.saved_kwh == 0


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 50, b"[]", b'{"version":1,"since":-1}', b'{"version":1,"since":1e999}']
)
def test_a_damaged_file_is_put_aside(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "energy.json").write_bytes(content)
    assert keeper(tmp_path, Wall()).account.used_kwh == 0
    assert (tmp_path / "energy.broken").read_bytes() == content
    assert "damaged" in caplog.text


COUNTING = """
import asyncio, sys
from datetime import UTC
from pathlib import Path
from appliance.power import energy

energy.SAVE_SECONDS = 0.01

async def count():
    keeper = energy.AccountKeeper(Path(sys.argv[1]), watts=energy.Watts(20, 1), zone=UTC)
    task = asyncio.create_task(keeper.run())
    total = keeper.account.used_kwh * 3.6e6
    print(f"begin {total:.0f}", flush=True)
    while True:
        keeper.account.add(1000, 1, "idle")
        total += 1000
        print(f"{total:.0f}", flush=True)
        await asyncio.sleep(0.001)

asyncio.run(count())
"""


def test_it_survives_being_killed_at_any_moment(tmp_path: Path) -> None:
    path = tmp_path / "energy.json"
    kept = 0.0
    for round_ in range(4):
        command = [sys.executable, "-c", COUNTING, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3]) as process:
            assert process.stdout is not None
            begin = float(process.stdout.readline().removeprefix("begin "))
            assert begin == kept
            for _ in range(150 + 37 * round_):
                process.stdout.readline()
            os.kill(process.pid, signal.SIGKILL)
            said = [float(line) for line in process.stdout.read().split()]
        state = read_account(path)
        assert state is not None
        kept = state.used
        most = max(said, default=float("inf"))
        assert begin < kept <= most
    assert not list(tmp_path.glob("*.broken"))


def test_it_is_not_written_when_nothing_changed(tmp_path: Path) -> None:
    wall = Wall()
    one = keeper(tmp_path, wall)
    assert not one.account.changed
    one.account.add(10, 60, "idle")
    assert one.account.changed


def test_uptime_comes_from_the_kernel() -> None:
    uptime = Uptime.read()
    assert uptime.seconds > 0
    assert len(uptime.boot) in {0, 36}
    assert datetime.fromtimestamp(time.time() - uptime.seconds, UTC) < datetime.now(UTC)


def test_the_file_is_plain(tmp_path: Path) -> None:
    one = keeper(tmp_path, Wall())
    one.account.add(10, 60, "idle")
    one.save()
    assert json.loads((tmp_path / "energy.json").read_text())["days"]["2026-11-28"]["idle"] == 60
