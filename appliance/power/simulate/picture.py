"""A simulation's result as charts: what it costs to wait less."""

from collections.abc import Callable, Sequence

from appliance.charts import Axis, Chart, Series, as_svg
from appliance.power.simulate.report import Point, Report


def chart(report: Report) -> str:
    """Return mean added latency and the share of requests that waited, by energy, as one SVG document."""
    energy = Axis("kWh per node and day")
    nodes = "1 node" if report.sample_nodes == 1 else f"{report.sample_nodes:,} nodes"
    return as_svg(
        Chart(
            f"Energy against added latency, {report.demand}, {nodes}",
            energy,
            Axis("mean added latency (s)"),
            _series(report.points, lambda point: point.mean_latency),
        ),
        Chart(
            "Energy against requests that met a sleeping machine",
            energy,
            Axis("requests (%)"),
            _series(report.points, lambda point: 100 * point.met_asleep_share),
        ),
    )


def _series(points: Sequence[Point], value: Callable[[Point], float]) -> list[Series]:
    """Return a line for each kind of policy, each point with its setting."""
    kinds: dict[str, list[Point]] = {}
    for point in points:
        kinds.setdefault(point.series, []).append(point)
    return [
        Series(
            name,
            [(point.kwh_per_node_day, value(point)) for point in found],
            labels=[point.setting for point in found],
        )
        for name, found in kinds.items()
    ]
