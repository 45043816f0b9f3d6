"""A simulation's result as a table."""

from rich.box import SIMPLE_HEAD
from rich.table import Table

from appliance.power.simulate.report import Latency, Outcome, Report

COLUMNS = (
    "Policy",
    "kWh/node/year",
    "Saved",
    "Awake",
    "Wakes/node/day",
    "Met asleep",
    "Added p50",
    "p95",
    "p99",
    "max",
    "mean",
    "Forecasts: hit",
    "missed",
)


def shown(report: Report) -> Table:
    """Return a row for each policy; times are seconds that sleep added to a request."""
    nodes = "1 node" if report.nodes == 1 else f"{report.nodes:,} nodes"
    table = Table(
        box=SIMPLE_HEAD,
        pad_edge=False,
        title=f"{nodes}, {report.days:g} days, {report.demand}",
        title_justify="left",
        caption=f"{report.seconds:.1f} s; {report.node_hours_per_second:,.0f} node hours a second",
        caption_justify="left",
    )
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == "Policy" else "right")
    for one in report.outcomes:
        table.add_row(*_cells(one))
    return table


def _cells(one: Outcome) -> list[str]:
    saved = f"{one.saved_kwh_per_node_year:.0f} ({one.saved_share:.0%})"
    forecast = [f"{one.forecasts.hits:,}", f"{one.forecasts.misses:,}"] if one.forecasts.wakes else ["", ""]
    return [
        one.policy,
        f"{one.kwh_per_node_year:.1f}",
        saved,
        f"{one.awake_share:.1%}",
        f"{one.wakes_per_node_day:.2f}",
        f"{one.met_asleep_share:.2%}",
        *_seconds(one.added_latency),
        *forecast,
    ]


def _seconds(latency: Latency) -> list[str]:
    values = (latency.p50, latency.p95, latency.p99, latency.max)
    return [*(f"{value:.1f} s" for value in values), f"{latency.mean:.2f} s"]
