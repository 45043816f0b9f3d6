"""What `rouse router` shows as tables."""

from collections.abc import Iterator, Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from appliance.routing.errors import RouterFilesError
from appliance.routing.evaluation import Report, Way
from appliance.routing.files import Manifest
from appliance.routing.model import TrainedRouter
from appliance.routing.nearest import Near


def report_tables(report: Report) -> Iterator[Table]:
    """Yield an evaluation's tables."""
    policies = _table("Held-out queries", "choice", "mean quality", "mean cost")
    for policy in report.policies:
        policies.add_row(policy.name, f"{policy.quality:.3f}", f"{policy.cost:.3f}")
    yield policies
    ways = _table("From random to oracle", "queries of", "way", "95 % interval", "queries", "templates")
    rows = {"all domains": report.way, **report.domains}
    if report.never_learned is not None:
        rows["tasks never learned from"] = report.never_learned
    for name, way in rows.items():
        ways.add_row(name, *_cells(way))
    yield ways
    if report.errors:
        errors = _table("Where another expert was better", "query", "asked", "better")
        for query, asked, better in report.errors[:20]:
            errors.add_row(query[:70], asked, better)
        yield errors


def versions_table(
    found: Mapping[str, Manifest | RouterFilesError], current: str | None, previous: str | None
) -> Table:
    """Return the list of versions."""
    table = _table("", "version", "", "method", "way to oracle", "experts")
    marks = {previous: "before", current: "at work"}
    for name, manifest in found.items():
        if isinstance(manifest, RouterFilesError):
            table.add_row(name, marks.get(name, ""), "[red]broken[/]", "", "")
            continue
        way = manifest.about.get("way_to_oracle")
        share = f"{100 * way:.0f} %" if isinstance(way, float) else ""
        method = str(manifest.about.get("method", manifest.head))[:60]
        table.add_row(name, marks.get(name, ""), method, share, ", ".join(manifest.experts))
    return table


def choice_table(router: TrainedRouter, text: str, scores: Mapping[str, float]) -> Table:
    """Return what a trained router expects of each able expert, the best first."""
    table = _table("", "expert", "score", "expected quality", "relative cost")
    expected = expectations(router, text)
    for name, score in sorted(scores.items(), key=lambda item: -item[1]):
        quality, cost = expected[name]
        table.add_row(escape(name), f"{score:z.3f}", f"{quality:.3f}", f"{cost:.3f}")
    return table


def expectations(router: TrainedRouter, text: str) -> dict[str, tuple[float, float]]:
    """Return by expert the expected quality and the relative cost."""
    qualities = router.qualities([text])[0]
    pairs = zip(map(float, qualities), map(float, router.costs), strict=True)
    return dict(zip(router.experts, pairs, strict=True))


def nearest_table(found: Sequence[Near]) -> Table:
    """Return the learnt queries that a text is most like, with the experts that answered each best."""
    table = _table("Nearest learnt queries", "query", "likeness", "best quality", "of")
    for near in found:
        best = max(near.qualities.values())
        names = [name for name, quality in near.qualities.items() if quality == best] if best > 0 else []
        table.add_row(escape(near.query[:70]), f"{near.likeness:.3f}", f"{best:.2f}", escape(", ".join(names)))
    return table


def _cells(way: Way) -> tuple[str, ...]:
    share = "-" if way.share is None else f"{100 * way.share:.1f} %"
    interval = "-" if way.low is None or way.high is None else f"{100 * way.low:.0f} to {100 * way.high:.0f} %"
    return share, interval, str(way.queries), str(way.templates)


def _table(title: str, *columns: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title=title or None, title_justify="left")
    for column in columns:
        table.add_column(column)
    return table
