"""Since when nobody has used the experts."""

import pytest

from appliance.node.clock import Clock, SleepDetector
from appliance.node.sleeping.activity import LOADING_SECONDS, ActivityWatch, Busyness
from appliance.node.supervised import Activity, ExpertState


class Time(Clock):
    """Clocks that a test sets; the machine may sleep."""

    now = 1000.0
    asleep = 0.0

    def monotonic(self) -> float:
        return self.now

    def boottime(self) -> float:
        return self.now + self.asleep


class Expert:
    """An expert that says what a test wants."""

    name = "small"

    def __init__(self, says: Activity | None) -> None:
        self.says = says
        self.state: ExpertState = "ready"

    async def activity(self) -> Activity | None:
        return self.says

    async def save_prefixes(self) -> bool:
        return True


def idle(seconds: float | None, *, clients: int = 0) -> Activity:
    return Activity(active=0, queued=0, clients=clients, idle=seconds)


async def test_the_expert_that_was_used_last_counts_and_the_start_is_use() -> None:
    time = Time()
    one, other = Expert(idle(500)), Expert(idle(400))
    watch = ActivityWatch([one, other], time)
    assert (await watch.look()).idle == 0
    time.now += 600
    one.says, other.says = idle(1100), idle(50)
    assert await watch.look() == Busyness(idle=50)


async def test_a_request_is_use_until_it_ends() -> None:
    time = Time()
    expert = Expert(Activity(active=1, queued=2, clients=0, idle=0))
    watch = ActivityWatch([expert], time)
    time.now += 600
    seen = await watch.look()
    assert (seen.active, seen.queued, seen.idle, seen.generating) == (1, 2, 0, True)
    time.now += 5
    expert.says = None
    assert (await watch.look()).idle == 5


@pytest.mark.parametrize("says", [None, idle(None, clients=1)])
async def test_who_says_nothing_of_it_keeps_nothing_awake(says: Activity | None) -> None:
    time = Time()
    watch = ActivityWatch([Expert(says)], time)
    time.now += 600
    seen = await watch.look()
    assert seen.idle == 600
    assert seen.lent_to == (says.clients if says else 0)


async def test_a_night_asleep_is_no_idle_time_and_to_wake_is_use() -> None:
    time = Time()
    watch, detector = ActivityWatch([Expert(idle(10))], time), SleepDetector(time)
    time.now += 10
    assert (await watch.look()).idle == 10
    time.asleep += 8 * 3600
    assert detector.slept() == 8 * 3600
    assert detector.slept() == 0
    assert (await watch.look()).idle == 10
    watch.touch()
    assert (await watch.look()).idle == 0


def test_clocks_that_are_read_one_after_the_other_are_no_sleep() -> None:
    time = Time()
    detector = SleepDetector(time)
    for _ in range(10):
        time.asleep += 0.01
        assert detector.slept() == 0


def test_the_real_clocks_go_forward() -> None:
    clock = Clock()
    first = (clock.monotonic(), clock.boottime())
    assert clock.monotonic() >= first[0]
    assert clock.boottime() >= first[1] >= first[0] - 1


async def test_a_model_that_is_loaded_keeps_the_machine_awake_but_not_for_ever() -> None:
    time = Time()
    expert = Expert(None)
    expert.state = "starting"
    watch = ActivityWatch([expert], time)
    time.now += 1000
    assert (await watch.look()).idle == 0
    time.now += 1000
    assert (await watch.look()).idle == 0
    time.now += LOADING_SECONDS
    assert (await watch.look()).idle == LOADING_SECONDS
    expert.state, expert.says = "ready", idle(5)
    assert (await watch.look()).idle == 5
    expert.state, expert.says = "starting", None
    time.now += 100
    assert (await watch.look()).idle == 0, "it has been ready since, so it may take its time again"


async def test_an_expert_that_failed_does_not_keep_the_machine_awake() -> None:
    time = Time()
    expert = Expert(None)
    expert.state = "failed"
    watch = ActivityWatch([expert], time)
    time.now += 1000
    assert (await watch.look()).idle == 1000
