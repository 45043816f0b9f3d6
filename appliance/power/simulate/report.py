"""What a simulation found, as numbers for people and scripts."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from appliance.power.simulate.block import Tally
from appliance.power.simulate.scenario import Contender, Scenario

JOULES_PER_KWH = 3.6e6
DAY = 86_400.0
YEAR_DAYS = 365.25


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Latency(_Part):
    """What sleep added to the time that requests take; in seconds."""

    p50: float
    p95: float
    p99: float
    max: float
    mean: float


class Forecasts(_Part):
    """How wakes by the forecast turned out."""

    wakes: int
    hits: int
    """After which a request came before the machine slept again."""
    misses: int
    """After which none came; the rest was still open at the end."""


class Outcome(_Part):
    """A policy's result on the whole fleet."""

    policy: str
    used_kwh: float
    always_on_kwh: float
    """What the fleet would have used if it never slept."""
    saved_kwh: float
    saved_share: float
    kwh_per_node_year: float
    saved_kwh_per_node_year: float
    awake_share: float
    """Of all time; going down and coming up do not count."""
    wakes: int
    wakes_per_node_day: float
    wakes_by_request: int
    wakes_by_alarm: int
    """By the machine's own clock, for its schedule."""
    requests: int
    met_asleep: int
    """Requests that had to wait for a machine."""
    met_asleep_share: float
    added_latency: Latency
    """Over all requests."""
    wait_of_those: Latency
    """Over those that had to wait."""
    forecasts: Forecasts
    decisions: int
    """How often the policy was asked."""


class Point(_Part):
    """A policy on the chart, tried on a sample of the fleet."""

    series: str
    setting: str
    kwh_per_node_day: float
    mean_latency: float
    met_asleep_share: float


class Report(_Part):
    """Everything that a simulation found."""

    nodes: int
    days: float
    warm_up_days: float
    seed: int
    demand: str
    zone: str
    seconds: float
    """How long the simulation took."""
    node_hours_per_second: float
    """Simulated hours of all nodes and policies, by the time it took."""
    watts: dict[str, float]
    outcomes: tuple[Outcome, ...]
    sample_nodes: int = 0
    """Nodes that the points of the chart were tried on."""
    points: Annotated[tuple[Point, ...], Field(repr=False)] = ()


def outcome(contender: Contender, tally: Tally, scenario: Scenario) -> Outcome:
    """Return a policy's result."""
    used, always_on = joules(contender, tally), _always_on(contender, tally)
    node_days = tally.nodes * (scenario.end - scenario.start) / DAY
    wakes = sum(tally.wakes.values())
    waits = tally.waits
    return Outcome(
        policy=contender.name,
        used_kwh=used / JOULES_PER_KWH,
        always_on_kwh=always_on / JOULES_PER_KWH,
        saved_kwh=(always_on - used) / JOULES_PER_KWH,
        saved_share=(always_on - used) / always_on if always_on else 0.0,
        kwh_per_node_year=used / JOULES_PER_KWH / node_days * YEAR_DAYS,
        saved_kwh_per_node_year=(always_on - used) / JOULES_PER_KWH / node_days * YEAR_DAYS,
        awake_share=tally.awake / (node_days * DAY),
        wakes=wakes,
        wakes_per_node_day=wakes / node_days,
        wakes_by_request=tally.wakes["request"],
        wakes_by_alarm=tally.wakes["alarm"],
        requests=waits.requests,
        met_asleep=waits.waited,
        met_asleep_share=waits.waited / waits.requests if waits.requests else 0.0,
        added_latency=_latency(tally, of_waiting=False),
        wait_of_those=_latency(tally, of_waiting=True),
        forecasts=Forecasts(wakes=tally.wakes["forecast"], hits=tally.hits, misses=tally.misses),
        decisions=tally.decisions,
    )


def point(series: str, setting: str, contender: Contender, tally: Tally, scenario: Scenario) -> Point:
    """Return a policy's place on the chart."""
    found = outcome(contender, tally, scenario)
    return Point(
        series=series,
        setting=setting,
        kwh_per_node_day=found.kwh_per_node_year / YEAR_DAYS,
        mean_latency=found.added_latency.mean,
        met_asleep_share=found.met_asleep_share,
    )


def joules(contender: Contender, tally: Tally) -> float:
    """Return what the nodes used: going down and coming up cost as much as work does."""
    watts = contender.settings
    return (
        (tally.awake - tally.busy) * watts.idle_watts
        + (tally.busy + tally.moving) * watts.busy_watts
        + tally.asleep * watts.asleep_watts
        + tally.off * watts.off_watts
    )


def _always_on(contender: Contender, tally: Tally) -> float:
    watts = contender.settings
    total = tally.awake + tally.moving + tally.asleep + tally.off
    return (total - tally.busy) * watts.idle_watts + tally.busy * watts.busy_watts


def _latency(tally: Tally, *, of_waiting: bool) -> Latency:
    waits = tally.waits
    among = waits.waited if of_waiting else waits.requests
    p50, p95, p99 = (waits.percentile(share, of_waiting=of_waiting) for share in (0.5, 0.95, 0.99))
    return Latency(p50=p50, p95=p95, p99=p99, max=waits.longest, mean=waits.total / among if among else 0.0)


def total_node_hours(scenario: Scenario, others: Sequence[Scenario] = ()) -> float:
    """Return the simulated hours of all nodes and policies."""
    return sum(
        one.nodes * len(one.contenders) * (one.end - one.start) / 3600.0 for one in (scenario, *others) if one.nodes
    )
