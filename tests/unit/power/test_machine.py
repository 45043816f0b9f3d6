"""One machine in the simulator, checked by hand, and against a daemon that asks every second."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.power.policy import Observed, Policy, Verdict
from appliance.power.simulate.machine import Life, Seen, Workload
from tests.unit.power.simulating import HOUR, START, live, policy, workload


def total(life: Life) -> float:
    return life.awake + life.asleep + life.off + life.moving


def test_one_request_to_a_sleeping_machine() -> None:
    # Awake from 0:00 to 0:10, then down in 5 s. At 12:00 a request: 10 s up, 30 s of answer, 600 s idle, 5 s down.
    life = live(policy(), workload((12 * HOUR, 30)))
    assert life.awake == 600 + 30 + 600
    assert life.moving == 5 + 10 + 5
    assert life.asleep == 24 * HOUR - life.awake - life.moving
    assert life.wakes == {"request": 1, "alarm": 0, "forecast": 0}
    assert life.waits == [(0, 1, START + 12 * HOUR + 10)]


def test_a_request_in_time_finds_it_awake() -> None:
    life = live(policy(), workload((599, 30), (629 + 600, 1)))
    assert life.waits == []
    assert life.awake == 629 + 600 + 1 + 600
    assert life.wakes["request"] == 0


def test_a_request_while_it_goes_down_waits_for_both_ways() -> None:
    life = live(policy(), workload((602, 30)))
    assert life.waits == [(0, 1, START + 605 + 10)]
    assert life.moving == 5 + 10 + 5
    assert life.asleep == 24 * HOUR - life.moving - (600 + 30 + 600)


def test_many_requests_cause_one_wake() -> None:
    life = live(policy(), workload((HOUR, 30), (HOUR + 4, 1), (HOUR + 9.5, 1), (HOUR + 11, 1)))
    assert life.wakes["request"] == 1
    assert life.waits == [(0, 3, START + HOUR + 10)]
    assert life.awake == 600 + 30 + 600, "the longest of those that waited decides when it is idle again"


def test_conversations_that_begin_while_it_starts_all_wait() -> None:
    # Powered off, it takes a minute to come back, which is longer than the idle time here.
    rules = policy(mode="poweroff", idle_after=20, minimum_awake=0)
    life = live(rules, workload((HOUR, 1), (HOUR + 30, 1), (HOUR + 59, 40), least_idle=20))
    assert life.waits == [(0, 3, START + HOUR + 60)]
    assert life.off > 0
    assert life.asleep == 0
    assert life.awake == 20 + 40 + 20


def test_the_end_comes_in_the_middle() -> None:
    asleep = live(policy(), workload(), hours=1)
    assert (asleep.awake, asleep.moving, asleep.asleep) == (600, 5, 3600 - 605)
    going = live(policy(), workload(), hours=602 / 3600)
    assert going.awake == 600
    assert going.moving == pytest.approx(2, abs=1e-6)
    coming = live(policy(), workload((3595, 30)), hours=1)
    assert (coming.moving, coming.awake) == (5 + 5, 600)
    assert coming.waits == [(0, 1, START + 3605)]
    answering = live(policy(), workload((3580, 300)), hours=1)
    assert answering.awake == 600 + 10


def test_its_own_clock_wakes_it_for_the_schedule() -> None:
    # Awake 0:00 to 0:10; 12:00 to 13:00 by the schedule, and 10 minutes idle are then over: down at 13:00.
    life = live(policy(awake=["daily 12:00-13:00"]), workload((12.5 * HOUR, 30)))
    assert life.wakes == {"request": 0, "alarm": 1, "forecast": 0}
    assert life.awake == pytest.approx(600 + HOUR)
    assert life.waits == []


def test_the_forecast_wakes_it_in_time_and_keeps_it_awake() -> None:
    wanted = [(START + 11.9 * HOUR, START + 13 * HOUR)]
    life = live(policy(), workload((12.5 * HOUR, 30), wanted=wanted))
    assert life.wakes == {"request": 0, "alarm": 0, "forecast": 1}
    assert (life.hits, life.misses, life.waits) == (1, 0, [])
    assert life.awake == pytest.approx(600 + 1.1 * HOUR - 10)


def test_a_forecast_that_was_wrong_is_a_miss() -> None:
    wanted = [(START + 11.9 * HOUR, START + 13 * HOUR)]
    life = live(policy(), workload((15 * HOUR, 30), wanted=wanted))
    assert (life.hits, life.misses) == (0, 1)
    assert life.wakes == {"request": 1, "alarm": 0, "forecast": 1}


def test_a_request_that_comes_while_the_forecast_wakes_it_waits_less() -> None:
    wanted = [(START + 12 * HOUR, START + 13 * HOUR)]
    life = live(policy(), workload((12 * HOUR + 6, 30), wanted=wanted))
    assert life.waits == [(0, 1, START + 12 * HOUR + 10)]
    assert (life.hits, life.misses) == (1, 0)


def test_a_machine_that_never_sleeps() -> None:
    life = live(policy(mode="never"), workload((12 * HOUR, 30)))
    assert (life.awake, life.waits, life.decisions) == (24 * HOUR, [], 0)


def test_wakes_take_longer_and_shorter() -> None:
    life = live(policy(), workload((5 * HOUR, 1), (10 * HOUR, 1), (15 * HOUR, 1), wake_factors=(0.5, 2.0)))
    assert [ready - START - hours * HOUR for (_, _, ready), hours in zip(life.waits, (5, 10, 15), strict=True)] == [
        pytest.approx(5),
        pytest.approx(20),
        pytest.approx(5),
    ]


# ---- properties

requests = st.lists(st.tuples(st.integers(0, 20_000), st.integers(0, 100)), max_size=25).map(sorted)
spans = st.lists(st.integers(0, 20_000), max_size=6, unique=True).map(sorted)
rules = st.fixed_dictionaries(
    {
        "mode": st.sampled_from(["suspend", "poweroff"]),
        "idle_after": st.integers(10, 2000),
        "minimum_awake": st.integers(0, 1000),
        "awake": st.sampled_from([[], ["daily 01:00-02:00"], ["daily 01:00-01:10", "daily 03:00-04:30"]]),
        "sleep_sooner": st.sampled_from([[], ["daily 00:30-03:15"]]),
        "power_off": st.sampled_from([[], ["daily 02:00-04:00"]]),
        "idle_after_sooner": st.integers(10, 300),
        "suspend_seconds": st.integers(0, 20),
        "resume_seconds": st.integers(0, 40),
    }
)


def drawn(decide: Policy, asked: list[tuple[int, int]], edges: list[int]) -> Workload:
    pairs = zip(edges[::2], edges[1::2], strict=False)
    wanted = [(START + one, START + other) for one, other in pairs]
    return workload(*asked, least_idle=decide.least_idle, wanted=wanted)


@settings(deadline=None)
@given(rules, requests, spans)
def test_no_second_is_lost(chosen: dict[str, object], asked: list[tuple[int, int]], edges: list[int]) -> None:
    decide = policy(**chosen)
    life = live(decide, drawn(decide, asked, edges), hours=6)
    assert total(life) == pytest.approx(6 * HOUR, abs=1e-3)
    assert min(life.awake, life.asleep, life.off, life.moving) >= 0
    assert life.hits + life.misses <= life.wakes["forecast"]
    waited = [place for first, behind, _ in life.waits for place in range(first, behind)]
    assert len(waited) == len(set(waited)) <= len(asked)
    assert all(START + asked[first][0] < ready for first, _, ready in life.waits)


def polled(decide: Policy, work: Workload, *, seconds: int) -> list[float]:
    """Ask the policy each second, as the daemon does, and return when the machine goes to sleep."""
    seen = Seen(START, START)
    slept: list[float] = []
    ways = {"suspend": decide.rules.suspend, "poweroff": decide.rules.poweroff}
    answered_until, place, now = START, 0, START
    while now < START + seconds:
        while place < len(work.times) and work.times[place] <= now:
            answered_until = max(answered_until, work.times[place] + work.seconds[place])
            place += 1
        seen.active_requests = int(answered_until > now)
        seen.last_activity = max(seen.last_activity, min(now, answered_until))
        seen.stay_awake_until = next((end for begin, end in work.wanted if begin <= now < end), None)
        verdict = decide(seen, now)
        if verdict.action == "stay":
            now += 1.0
            continue
        slept.append(now)
        way = ways[verdict.action]
        asked = work.times[place] if place < len(work.times) else float("inf")
        foreseen = min((begin for begin, _ in work.wanted if begin > now), default=float("inf"))
        woken = min(asked, foreseen, verdict.wake_at or float("inf"))
        ready = max(woken, now + way.down_seconds) + way.up_seconds
        if max(woken, now + way.down_seconds) >= START + seconds:
            break
        while place < len(work.times) and work.times[place] < ready:
            answered_until = max(answered_until, ready + work.seconds[place])
            place += 1
        seen.awake_since = seen.last_activity = ready
        now = ready
    return slept


class Recorded(Policy):
    """The policy, with a note of when it said that the machine sleeps."""

    def __init__(self, one: Policy) -> None:
        super().__init__(one.rules)
        self.slept: list[float] = []

    def __call__(self, seen: Observed, now: float) -> Verdict:
        verdict = super().__call__(seen, now)
        if verdict.action != "stay":
            self.slept.append(now)
        return verdict


@settings(deadline=None, max_examples=60)
@given(rules, requests, spans)
def test_it_sleeps_when_a_daemon_that_asks_each_second_would(
    chosen: dict[str, object], asked: list[tuple[int, int]], edges: list[int]
) -> None:
    decide = Recorded(policy(**chosen))
    work = drawn(decide, asked, edges)
    live(decide, work, hours=6)
    assert decide.slept == pytest.approx(polled(policy(**chosen), work, seconds=6 * 3600), abs=1.01)
