from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.power.schedule import WEEK, WeeklySchedule
from appliance.settings.weekly import DAYS, WeeklyHours, parse_hours

BERLIN = ZoneInfo("Europe/Berlin")


def berlin(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN).timestamp()


def schedule(*texts: str, zone: ZoneInfo = BERLIN) -> WeeklySchedule:
    return WeeklySchedule([parse_hours(text) for text in texts], zone)


@pytest.mark.parametrize(
    ("text", "days", "start", "end"),
    [
        ("weekdays 06:30-08:00", {0, 1, 2, 3, 4}, 390, 480),
        ("sat,sun 09:00-24:00", {5, 6}, 540, 1440),
        ("fri-mon 22:00-06:00", {4, 5, 6, 0}, 1320, 1800),
        ("  Daily   00:00-24:00 ", set(range(7)), 0, 1440),
        ("tue 06:30", {1}, 390, 391),
        ("weekends,wed 23:59", {2, 5, 6}, 1439, 1440),
    ],
)
def test_hours_are_read_as_people_write_them(text: str, days: set[int], start: int, end: int) -> None:
    assert parse_hours(text) == WeeklyHours(frozenset(days), start, end)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "expected days and hours"),
        ("06:30-08:00", "expected days and hours"),
        ("monday 06:30", "'monday' is no day"),
        ("mon- 06:30", "'mon-' is no day"),
        ("mon,, 06:30", "'' is no day"),
        ("mon-tue-wed 06:30", "'mon-tue-wed' is no day"),
        ("mon 6:30", "expected days and hours"),
        ("mon 25:00-26:00", "expected days and hours"),
        ("mon 24:00", "a day ends at 24:00"),
        ("mon 22:00-24:30", "a day ends at 24:00"),
        ("mon 06:30-06:30", "begins when it ends"),
        ("mon 06:60", "expected days and hours"),
    ],
)
def test_what_is_wrong_with_hours_is_said(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_hours(text)


def test_hours_begin_and_end_by_the_houses_clock() -> None:
    hours = schedule("weekdays 06:30-08:00")
    assert hours.at(berlin("2026-11-27T06:29")) == (False, berlin("2026-11-27T06:30"))
    assert hours.at(berlin("2026-11-27T06:30")) == (True, berlin("2026-11-27T08:00"))
    assert hours.at(berlin("2026-11-27T08:00")) == (False, berlin("2026-11-30T06:30")), "a weekend lies between"
    assert hours.next_start(berlin("2026-11-27T06:30")) == berlin("2026-11-30T06:30")


def test_hours_into_the_next_day_and_hours_that_touch() -> None:
    hours = schedule("fri 22:00-06:00", "sat 06:00-07:00", "sat 06:30-09:00")
    assert hours.at(berlin("2026-11-28T03:00")) == (True, berlin("2026-11-28T09:00"))


def test_no_hours_and_all_hours() -> None:
    assert schedule().at(0.0) == (False, float("inf"))
    assert schedule().next_start(0.0) is None
    on, until = schedule("daily 00:00-24:00").at(berlin("2026-11-28T03:00"))
    assert on
    assert until - berlin("2026-11-28T03:00") >= WEEK
    assert schedule("daily 00:00-24:00").next_start(berlin("2026-11-28T03:00")) is None


def test_when_the_clocks_change() -> None:
    hours = schedule("sun 02:30-04:00")
    # In spring there is no 02:30: it begins an hour later, at 03:30.
    assert hours.next_start(berlin("2026-03-28T12:00")) == berlin("2026-03-29T03:30")
    # In autumn there are two: it begins in the first, and lasts an hour longer.
    start = hours.next_start(berlin("2026-10-24T12:00"))
    assert start == datetime(2026, 10, 25, 0, 30, tzinfo=UTC).timestamp()
    assert hours.at(start)[1] - start == 2.5 * 3600
    skipped = schedule("sun 02:10-02:50")
    start = skipped.next_start(berlin("2026-03-28T12:00"))
    assert start is not None
    assert skipped.at(start) == (True, start + 40 * 60)


entries = st.builds(
    lambda days, start, length: WeeklyHours(frozenset(days), start, start + length),
    st.sets(st.integers(0, 6), min_size=1),
    st.integers(0, 1439),
    st.integers(1, 1440),
)
zones = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"])
moments = st.floats(1.6e9, 2.1e9)


@settings(deadline=None)
@given(st.lists(entries, max_size=4), zones, moments)
def test_a_stretch_is_what_a_look_at_the_clock_says(hours: list[WeeklyHours], zone: str, now: float) -> None:
    weekly = WeeklySchedule(hours, ZoneInfo(zone))
    on, until = weekly.at(now)
    assert until > now
    following = weekly.next_start(now)
    assert following is None or following > now
    if not on and hours:
        assert following == until
    local = datetime.fromtimestamp(now, ZoneInfo(zone))
    near_change = any(
        datetime.fromtimestamp(now + hours * 3600, ZoneInfo(zone)).utcoffset() != local.utcoffset()
        for hours in range(-50, 27)
    )
    if not near_change:
        minute = local.hour * 60 + local.minute
        assert on == any(
            (local.weekday() in one.days and one.start <= minute < one.end)
            or ((local.weekday() - 1) % 7 in one.days and minute + 1440 < one.end)
            for one in hours
        )


@settings(deadline=None)
@given(st.sampled_from(DAYS), st.integers(0, 23), st.integers(0, 59))
def test_the_next_start_comes_within_a_week(day: str, hour: int, minute: int) -> None:
    now = berlin("2026-10-20T12:00")
    start = schedule(f"{day} {hour:02}:{minute:02}").next_start(now)
    assert start is not None
    assert now < start <= now + WEEK + 3600
