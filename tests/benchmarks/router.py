"""The trained router on held-out queries: how far it goes from chance to hindsight, and how long it takes.

Its choices are shown without a verdict: the features were changed after a look at these queries, and the same hand
wrote the later prompts. What the goal of 90 % is held against are the queries of another hand in `router_blind`.

It learns from `router.jsonl`, what two packaged models and four scripted specialists really answered
(`tests.benchmarks.router_data` makes it anew).
"""

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from appliance.routing import dataset
from appliance.routing.evaluation import Report, Way, evaluate
from appliance.routing.files import save
from appliance.routing.live import LiveRouter
from appliance.routing.model import TrainedRouter
from appliance.routing.rules import RulesRouter
from appliance.routing.table import Table, split, table_of
from appliance.routing.training import METHODS, fit
from appliance.routing.versions import RouterVersions
from tests.benchmarks.router_data import FILE, UNSEEN_FILE
from tests.benchmarks.scenario import Result, Row, Scenario, Setting

SHARE, SEED = 0.3, 1
FURTHER_SEEDS = range(2, 10)
NGRAMS = tuple(method for method in METHODS if method.features == "ngrams")
WORDS = (10, 50, 200)
ROUNDS = 300
RULES = {
    "home-control": ("house",),
    "coding": ("snippets",),
    "maths": ("sums",),
    "extraction": ("extractor",),
    "chat": ("smollm2-135m",),
}


async def run(setting: Setting) -> Result:
    """Train on one part, evaluate on the other, and time decisions of the whole router."""
    table = table_of(dataset.read(FILE))
    rules = RulesRouter(rules=RULES, purposes={})
    router, report = _trained(table, rules, SEED)
    setting.say(f"{len(table.queries)} queries, experts: {', '.join(table.experts)}")
    others = [_trained(table, rules, seed)[1].way.share or 0.0 for seed in FURTHER_SEEDS]
    texts = [query.query for query in table.queries[:20]]
    texts += [" ".join((" ".join(texts)).split()[:count]) for count in WORDS]
    wall, processor = _decisions(router, texts, table.experts)
    late = int(0.99 * len(wall))
    by_clock = f"median of {len(wall)}; 99th percentile {wall[late]:.2f} ms, largest {wall[-1]:.2f} ms"
    by_processor = f"99th percentile; median {statistics.median(processor):.2f} ms, largest {processor[-1]:.2f} ms"
    rows = [
        Row("router: a decision by the clock", statistics.median(wall), "ms", ("less than", 5.0), by_clock),
        Row("router: a decision's processor time", processor[late], "ms", ("less than", 5.0), by_processor),
        Row(
            "router: way from random to oracle, held-out queries",
            100 * (report.way.share or 0.0),
            "%",
            None,
            f"{_told(report.way)}, whose errors were looked at before the signs were added; "
            f"other splits: {100 * min(others):.0f} to {100 * max(others):.0f} %, "
            f"mean {100 * statistics.mean(others):.1f} %",
        ),
    ]
    unseen = table_of([*dataset.read(FILE), *dataset.read(UNSEEN_FILE)])
    new = np.array([query.task_id is not None and "/unseen-" in query.task_id for query in unseen.queries])
    fresh = evaluate(unseen, learned=np.flatnonzero(~new), held_out=np.flatnonzero(new), router=router, rules=rules)
    share = 100 * (fresh.way.share or 0.0)
    beside = next(policy for policy in fresh.policies if policy.name == "rules")
    note = f"{_told(fresh.way)}; quality of rules {beside.quality:.2f}, of the router {_quality(fresh):.2f}"
    rows.append(Row("router: the same, prompts of the same hand, written afterwards", share, "%", None, note))
    if report.never_learned is not None:
        share = 100 * (report.never_learned.share or 0.0)
        rows.append(Row("router: the same, tasks unlike any learned", share, "%", None, _told(report.never_learned)))
    rows += [
        Row(f"router: quality of {policy.name}", policy.quality, "of 1", None, f"mean cost {policy.cost:.2f} s")
        for policy in report.policies
    ]
    return Result(
        rows,
        [report.chart()],
        [_wrong(report), _wrong(fresh)],
        {"held_out": report.as_json(), "unseen": fresh.as_json()},
    )


def _trained(table: Table, rules: RulesRouter, seed: int) -> tuple[TrainedRouter, Report]:
    learned, held_out = split(table, share=SHARE, seed=seed)
    fitted = fit(table, learned, name="bench", methods=NGRAMS)
    return fitted.router, evaluate(table, learned=learned, held_out=held_out, router=fitted.router, rules=rules)


def _decisions(router: TrainedRouter, texts: Sequence[str], experts: Sequence[str]) -> tuple[list[float], list[float]]:
    """Return the milliseconds of decisions as the gateway asks for them, by the clock and of the processor, sorted."""
    wall, processor = [], []
    with tempfile.TemporaryDirectory() as folder:
        versions = RouterVersions(Path(folder))
        save(versions.path(router.name), router, created="now", about={})
        versions.activate(router.name)
        live = LiveRouter(folder=versions.folder, rules=RulesRouter(rules=RULES, purposes={}))
        live.start()
        for number in range(ROUNDS * 10):
            text = texts[number % len(texts)]
            began, used = time.perf_counter(), time.thread_time()
            live.choose(text, experts)
            processor.append(1000 * (time.thread_time() - used))
            wall.append(1000 * (time.perf_counter() - began))
    return sorted(wall), sorted(processor)


def _quality(report: Report) -> float:
    return next(policy.quality for policy in report.policies if policy.name == "router")


def _told(way: Way) -> str:
    interval = (
        "" if way.low is None or way.high is None else f", 95 % interval {100 * way.low:.0f} to {100 * way.high:.0f}"
    )
    return f"{way.queries} queries of {way.templates} templates{interval}"


def _wrong(report: Report) -> str:
    shown = "; ".join(f"{query!r}: {asked}, better {better}" for query, asked, better in report.errors[:10])
    return f"not the best choice for {len(report.errors)} held-out queries: {shown}"


SCENARIO = Scenario("router", "The trained router", run)
