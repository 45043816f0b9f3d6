"""The simulator on fleets: the same functions as the daemon and the hub, whatever the size."""

from datetime import datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.cli.power_plan import power_plan
from appliance.node.sleeping.policy import Observation
from appliance.power.demand import AHEAD_SECONDS, THRESHOLD, Demand
from appliance.power.policy import Observed, Policy, Verdict
from appliance.power.simulate import block, fleet
from appliance.power.simulate.block import Simulator, Tally, block_size, busy_seconds, replay, workloads
from appliance.power.simulate.errors import SimulationError
from appliance.power.simulate.fleet import simulate
from appliance.power.simulate.foresight import LINGER_SECONDS, foresee, wanted
from appliance.power.simulate.households import PROFILES, Requests, in_order, invent
from appliance.power.simulate.latency import Waits
from appliance.power.simulate.recording import Recorded
from appliance.power.simulate.report import joules, outcome
from appliance.power.simulate.scenario import Contender, Scenario, hours_between
from appliance.power.wake.foresight import STAY_SECONDS
from appliance.settings.model import Settings
from appliance.settings.waking import WakeSettings
from tests.unit.power.simulating import BERLIN, CALM, END, FIRST, START, policy, scenario

ALWAYS_ON = Contender("always on", CALM.model_copy(update={"mode": "never"}))
IDLE = Contender("idle", CALM)
FORECAST = Contender("forecast", CALM, 0.4)
DAYS = 7


def first_block(one: Scenario) -> list[Tally]:
    return Simulator(one).run(0)


def test_the_daemon_and_the_simulator_decide_by_the_same_function(monkeypatch: pytest.MonkeyPatch) -> None:
    settings_ = Settings.model_validate(
        {
            "power": CALM.model_dump() | {"awake": ["weekdays 17:00-19:00"], "sleep_sooner": ["daily 23:00-05:00"]},
            "system": {"time_zone": "Europe/Berlin"},
            "node": {"roles": ["expert"]},
        }
    )
    daemons = power_plan(settings_).decide
    assert type(daemons) is Policy
    simulator = Simulator(scenario(Contender("mine", settings_.power)))
    assert type(simulator.policies[0]) is Policy
    assert type(simulator.policies[0]).__call__ is type(daemons).__call__

    asked: list[tuple[Observation, float, Verdict]] = []
    real = Policy.__call__

    def noting(self: Policy, seen: Observed, now: float) -> Verdict:
        verdict = real(self, seen, now)
        fields = {name: getattr(seen, name) for name in Observation.__dataclass_fields__}
        asked.append((Observation(**fields), now, verdict))
        return verdict

    monkeypatch.setattr(Policy, "__call__", noting)
    simulator.run(0)
    monkeypatch.undo()
    assert len({verdict.action for _, _, verdict in asked}) == 2
    for seen, now, verdict in asked[:: len(asked) // 500]:
        daemons_verdict = daemons(seen, now)
        assert (daemons_verdict.action, daemons_verdict.reason, daemons_verdict.wake_at) == (
            verdict.action,
            verdict.reason,
            verdict.wake_at,
        )


def test_a_fleet_that_is_always_on_adds_no_latency_and_saves_nothing() -> None:
    one = scenario(ALWAYS_ON)
    (tally,) = first_block(one)
    assert tally.awake == pytest.approx(40 * DAYS * 86_400)
    assert (tally.asleep, tally.moving, tally.waits.waited, tally.waits.longest) == (0, 0, 0, 0)
    found = outcome(ALWAYS_ON, tally, one)
    assert (found.saved_kwh, found.wakes, found.added_latency.p99, found.added_latency.mean) == (0, 0, 0, 0)


def test_time_is_conserved_and_policies_rank_as_they_must() -> None:
    one = scenario(ALWAYS_ON, IDLE, FORECAST)
    always_on, idle, forecast = (
        outcome(contender, tally, one) for contender, tally in zip(one.contenders, first_block(one), strict=True)
    )
    for tally in first_block(one):
        total = tally.awake + tally.asleep + tally.off + tally.moving
        assert total == pytest.approx(40 * DAYS * 86_400)
        assert 0 < tally.busy < tally.awake
    assert idle.used_kwh < forecast.used_kwh < always_on.used_kwh
    assert always_on.met_asleep < forecast.met_asleep < idle.met_asleep
    assert idle.requests == forecast.requests == always_on.requests
    assert forecast.forecasts.hits > 0
    assert forecast.forecasts.hits + forecast.forecasts.misses <= forecast.forecasts.wakes


def test_an_hour_checked_by_hand() -> None:
    # One expert, asked at 12:00 on the one day that counts, for 36 s; CALM sleeps after 600 s.
    noon = START + 12 * 3600
    recorded = (Recorded("small", np.array([noon]), np.array([36.0])),)
    one = scenario(ALWAYS_ON, IDLE, nodes=1, end=START + 86_400, recording=recorded, spread=0.0)
    always_on, idle = first_block(one)
    assert always_on.busy == pytest.approx(36)
    assert joules(ALWAYS_ON, always_on) == pytest.approx((86_400 - 36) * 20 + 36 * 50)
    # Awake 600 s, down 5 s, asleep, up 10 s, busy 36 s, idle 600 s, down 5 s, asleep until midnight.
    assert idle.asleep == pytest.approx(86_400 - 600 - 5 - 10 - 36 - 600 - 5)
    assert joules(IDLE, idle) == pytest.approx((5 + 10 + 36 + 5) * 50 + 1200 * 20 + idle.asleep * 2)
    found = outcome(IDLE, idle, one)
    assert (found.requests, found.met_asleep, found.wakes) == (1, 1, 1)
    assert found.added_latency.max == found.added_latency.mean == pytest.approx(10)
    assert found.added_latency.p50 == pytest.approx(10, rel=0.005)


def test_the_same_seed_gives_the_same_numbers_on_any_number_of_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    one = scenario(IDLE, FORECAST, nodes=2 * block.BLOCK + 10, end=START + 86_400)
    done: list[int] = []
    alone = simulate(one, processes=1, done=done.append)
    assert done == [block.BLOCK, block.BLOCK, 10]
    together = simulate(one, processes=2)
    for contender, here, there in zip(one.contenders, alone, together, strict=True):
        assert outcome(contender, here, one) == outcome(contender, there, one)
    monkeypatch.setattr(fleet, "IN_FLIGHT", 1)
    other = simulate(scenario(IDLE, seed=8, nodes=10, end=START + 86_400), processes=1)
    assert other[0].awake != simulate(scenario(IDLE, nodes=10, end=START + 86_400), processes=1)[0].awake


def test_long_times_and_long_recordings_make_smaller_blocks() -> None:
    assert block_size(scenario(IDLE)) == block.BLOCK
    assert block_size(scenario(IDLE, end=FIRST + 1000 * 86_400)) == 50
    long = Recorded("small", np.linspace(FIRST, END, 30_000), np.full(30_000, 1.0))
    assert block_size(scenario(IDLE, recording=(long,))) == 33
    short = Recorded("big", np.linspace(FIRST, END, 50), np.full(50, 1.0))
    one = scenario(IDLE, nodes=70, recording=(long, short), end=START + 86_400)
    done: list[int] = []
    (tally,) = simulate(one, processes=1, done=done.append)
    assert done == [33, 33, 4]
    assert tally.nodes == 70


def test_a_process_that_is_killed_is_one_sentence() -> None:
    one = scenario(IDLE, nodes=60 * block.BLOCK)

    def kill(_nodes: int) -> None:
        for process in psutil.Process().children():
            if "spawn_main" in " ".join(process.cmdline()):
                process.kill()

    with pytest.raises(SimulationError, match="for want of memory"):
        simulate(one, processes=2, done=kill)


def test_a_small_fleet_is_the_beginning_of_a_large_one() -> None:
    small, large = (Simulator(scenario(IDLE, nodes=nodes))._random(0, nodes)[0] for nodes in (3, 200))
    assert np.array_equal(large.times[large.node < 3], small.times)


# ---- the forecast


def test_the_simulators_forecast_is_the_hubs() -> None:
    hours = hours_between(FIRST, END, BERLIN)
    requests = invent(np.random.default_rng(3), nodes=6, profile="family", hours=hours)
    foreseen = foresee(requests, hours, start=START)
    for node in range(6):
        demand = Demand(BERLIN)
        times = requests.times[requests.node == node]
        demand.note("small", times[0])
        demand = Demand.restored(demand.state().model_copy(update={"last": 0.0, "asked": ()}), BERLIN)
        place, now = 0, FIRST
        for number, hour in enumerate(foreseen.hours):
            while now <= hour.start:
                while place < len(times) and times[place] <= now:
                    demand.note("small", times[place])
                    place += 1
                demand.advance(now)
                now += 600
            assert demand.wanted(hour.start)["small"] == pytest.approx(foreseen.chances[node, number], abs=1e-9)


def test_likely_hours_that_follow_one_another_are_one_stretch() -> None:
    hours = hours_between(FIRST, END, BERLIN)
    requests = invent(np.random.default_rng(3), nodes=20, profile="family", hours=hours)
    foreseen = foresee(requests, hours, start=START)
    found = wanted(foreseen, 0.4)
    starts = {hour.start - AHEAD_SECONDS for hour in hours}
    assert len(found.begin)
    assert set(found.begin.tolist()) <= starts
    likely = int((foreseen.chances >= 0.4).sum())
    lengths = found.end - found.begin - AHEAD_SECONDS - LINGER_SECONDS
    assert lengths.sum() == pytest.approx(likely * 3600)
    for node in range(20):
        mine = list(zip(found.begin[found.node == node], found.end[found.node == node], strict=True))
        assert all(one[1] < other[0] for one, other in pairwise(mine))
    assert not len(wanted(foreseen, 1.1).begin)


def test_the_simulator_keeps_machines_awake_for_as_long_as_the_hub_does() -> None:
    # The hub asks for STAY_SECONDS, and again when less than half is left: between half and all of it, in the end.
    assert LINGER_SECONDS == 0.75 * STAY_SECONDS
    wake = WakeSettings()
    assert (wake.forecast_threshold, wake.forecast_ahead) == (THRESHOLD, AHEAD_SECONDS)


# ---- demand


@pytest.mark.parametrize("profile", ["mixed", *PROFILES])
def test_invented_demand_is_in_order_and_in_time(profile: str) -> None:
    hours = hours_between(FIRST, END, BERLIN)
    found = invent(np.random.default_rng(1), nodes=60, profile=profile, hours=hours)
    assert ((found.times >= FIRST) & (found.times < END)).all()
    assert (np.diff(found.node) >= 0).all()
    assert all((np.diff(found.times[found.node == node]) >= 0).all() for node in range(60))
    per_day = len(found.times) / 60 / 21
    assert 3 < per_day < 80


def test_people_who_work_in_shifts_move_on_week_by_week() -> None:
    hours = hours_between(FIRST, END, BERLIN)
    found = invent(np.random.default_rng(1), nodes=200, profile="shifts", hours=hours)
    local = [datetime.fromtimestamp(moment, BERLIN) for moment in found.times[::5]]
    weeks: list[set[int]] = [set(), set(), set()]
    for moment in local:
        if moment.weekday() < 5:
            weeks[int((moment.timestamp() - FIRST) // (7 * 86_400))].add(moment.hour)
    assert 5 in weeks[0]
    assert 3 not in weeks[0]
    assert 13 in weeks[1]


def test_a_recording_is_dealt_out() -> None:
    recording = (
        Recorded("big", np.array([1.0e9, 1.0e9 + 50]), np.array([5.0, np.nan])),
        Recorded("small", np.array([1.5e9]), np.array([7.0])),
    )
    found = replay(np.random.default_rng(0), recording, range(5))
    assert found.nodes == 5
    assert found.times[found.node == 0].tolist() == [1.0e9, 1.0e9 + 50]
    assert found.seconds[found.node == 1].tolist() == [7.0]
    moved = found.times[found.node == 2]
    assert 0 < abs(moved[0] - 1.0e9) <= block.COPY_SECONDS
    assert moved[1] - moved[0] == pytest.approx(50)


some_requests = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5000), st.integers(0, 200)), max_size=40).map(
    lambda rows: in_order(
        np.array([row[0] for row in rows], dtype=np.intp),
        np.array([float(START + row[1]) for row in rows]),
        np.array([float(row[2]) for row in rows]),
        4,
    )
)


@settings(deadline=None)
@given(some_requests, st.integers(0, 900))
def test_conversations_are_cut_where_nobody_asks_for_long_enough(requests: Requests, least_idle: int) -> None:
    cut = workloads(requests, float(least_idle), None, np.ones((4, 1)))
    assert sum(len(work.times) for _, work in cut) == len(requests.times)
    for first, work in cut:
        assert list(work.times) == requests.times[first : first + len(work.times)].tolist()
        begins, ends, last = [], [], -np.inf
        for at, seconds in zip(work.times, work.seconds, strict=True):
            if at - last > least_idle:
                begins.append(at)
                ends.append(at + seconds)
            ends[-1] = last = max(at + seconds, ends[-1])
        assert work.begins == pytest.approx(begins)
        assert work.ends == pytest.approx(ends)


@settings(deadline=None)
@given(some_requests)
def test_busy_time_counts_once_what_overlaps(requests: Requests) -> None:
    expected = 0
    for node in range(4):
        mine = requests.node == node
        seconds_on: set[int] = set()
        for at, length in zip(requests.times[mine], requests.seconds[mine], strict=True):
            seconds_on |= set(range(int(at - START), int(at - START + length)))
        expected += len([second for second in seconds_on if second < 4000])
    assert busy_seconds(requests, requests.times, START + 4000) == pytest.approx(expected, abs=1e-3)


# ---- latency


@settings(deadline=None)
@given(st.lists(st.floats(0.002, 7000), max_size=200), st.integers(0, 500), st.floats(0.01, 1))
def test_percentiles_are_as_exact_as_said(waited: list[float], at_once: int, share: float) -> None:
    waits = Waits()
    half = len(waited) // 2
    waits.add(np.array(waited[:half]), requests=half)
    other = Waits()
    other.add(np.array(waited[half:]), requests=len(waited) - half + at_once)
    waits.merge(other)
    everyone = sorted([0.0] * at_once + waited)
    if everyone:
        rank = int(np.ceil(share * len(everyone))) - 1
        assert waits.percentile(share) == pytest.approx(everyone[rank], rel=0.0051)
        assert waits.longest == max(everyone)
        assert waits.mean == pytest.approx(sum(everyone) / len(everyone))
    else:
        assert waits.percentile(share) == waits.mean == 0


def test_the_policy_module_imports_nothing_that_could_wait() -> None:
    source = (Path(__file__).parents[3] / "appliance" / "power" / "policy.py").read_text()
    imported = {line.split()[1] for line in source.splitlines() if line.startswith(("import ", "from "))}
    assert imported == {
        "collections.abc",
        "dataclasses",
        "datetime",
        "math",
        "typing",
        "appliance.power.schedule",
        "appliance.settings.power",
        "appliance.settings.weekly",
    }


def test_decisions_are_few() -> None:
    one = scenario(IDLE)
    (tally,) = first_block(one)
    assert tally.waits.requests > 2 * tally.decisions
    assert policy().least_idle == CALM.idle_after
