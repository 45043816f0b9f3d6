"""What the simulator's tests share."""

from dataclasses import replace
from datetime import datetime
from zoneinfo import ZoneInfo

from appliance.power.policy import Policy, Rules
from appliance.power.simulate.machine import Life, Machine, Workload
from appliance.power.simulate.scenario import Contender, Scenario, period
from appliance.settings.power import PowerSettings

BERLIN = ZoneInfo("Europe/Berlin")
FIRST, START, END = period(datetime(2026, 1, 5, tzinfo=BERLIN), 14, 7)
HOUR = 3600.0

CALM = PowerSettings(
    idle_after=600,
    minimum_awake=60,
    suspend_seconds=5,
    resume_seconds=10,
    shutdown_seconds=20,
    boot_seconds=60,
    idle_watts=20,
    busy_watts=50,
    asleep_watts=2,
    off_watts=1,
)


def policy(**changes: object) -> Policy:
    return Policy(Rules.of(PowerSettings.model_validate(CALM.model_dump() | changes), BERLIN))


def workload(*requests: tuple[float, float], least_idle: float = 600, **more: object) -> Workload:
    """Return requests at seconds after the start, each with how long it is answered, cut into conversations."""
    times = [START + at for at, _ in requests]
    seconds = [length for _, length in requests]
    begins: list[float] = []
    ends: list[float] = []
    for at, length in zip(times, seconds, strict=True):
        if ends and at - ends[-1] <= least_idle:
            ends[-1] = max(ends[-1], at + length)
        else:
            begins.append(at)
            ends.append(at + length)
    return replace(Workload(times, seconds, begins, ends), **more)  # type: ignore[arg-type]


def live(decide: Policy, work: Workload, *, hours: float = 24) -> Life:
    return Machine(decide, work, start=START, end=START + hours * HOUR).run()


def scenario(*contenders: Contender, nodes: int = 40, **more: object) -> Scenario:
    return replace(
        Scenario(nodes=nodes, first=FIRST, start=START, end=END, zone="Europe/Berlin", seed=7, contenders=contenders),
        **more,  # type: ignore[arg-type]
    )
