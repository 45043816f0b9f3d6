"""A report as charts."""

from collections.abc import Callable, Sequence

from appliance.benchmark.report import Level, Report
from appliance.benchmark.summary import Summary
from appliance.charts import Axis, Chart, Series, as_svg

MOST_TICKS = 8

type Point = Callable[[Level], float | None]


def chart(report: Report) -> str:
    """Return throughput, first-token and inter-token percentiles by concurrency, as one SVG document."""
    concurrency = sorted({level.concurrency for level in report.levels})
    clients = Axis("clients at once", ticks=concurrency if len(concurrency) <= MOST_TICKS else ())
    return as_svg(
        Chart(
            f"Throughput, {report.model or report.target}",
            clients,
            Axis("tokens per second"),
            _by_length(report.levels, "", lambda level: level.tokens_per_second),
        ),
        Chart("Time to first token", clients, Axis("milliseconds", log=True), _percentiles(report, "first_token_ms")),
        Chart("Time between tokens", clients, Axis("milliseconds", log=True), _percentiles(report, "inter_token_ms")),
    )


def _percentiles(report: Report, name: str) -> list[Series]:
    found: list[Series] = []
    for percentile in ("p50", "p95", "p99"):

        def value(level: Level, percentile: str = percentile) -> float | None:
            summary: Summary | None = getattr(level, name)
            return None if summary is None else float(getattr(summary, percentile))

        found += _by_length(report.levels, percentile, value)
    return found


def _by_length(levels: Sequence[Level], name: str, value: Point) -> list[Series]:
    """Return a series for each prompt length."""
    lengths = dict.fromkeys(level.prompt_tokens for level in levels)
    series = []
    for length in lengths:
        prompt = "" if length is None else f"{length:,}-token prompt"
        points = [
            (level.concurrency, found)
            for level in levels
            if level.prompt_tokens == length and (found := value(level)) is not None
        ]
        series.append(Series(", ".join(filter(None, (name, prompt))) or "all", points))
    return series
