"""The trained router on queries of another hand: no template is shared, and nothing was fitted to them.

`blind/*.yaml` was written after the features and rules of the router, knowing what the specialists' scripts can do;
neither features nor rules were changed for it since. `blind.jsonl` is what the experts of `router_data` really
answered. Whoever changes features or rules after a look at the errors here writes new queries first.
"""

from pathlib import Path

import numpy as np

from appliance.routing import dataset
from appliance.routing.evaluation import Report, evaluate
from appliance.routing.rules import RulesRouter
from appliance.routing.table import split, table_of
from appliance.routing.training import fit
from tests.benchmarks.router import FURTHER_SEEDS, NGRAMS, RULES, SEED, SHARE
from tests.benchmarks.router_data import FILE
from tests.benchmarks.scenario import Result, Row, Scenario, Setting

QUERIES = Path(__file__).parent / "blind"
ANSWERS = Path(__file__).parent / "blind.jsonl"


async def run(setting: Setting) -> Result:
    """Train as `router` does, evaluate on the blind queries alone."""
    report = blind_report(SEED)
    others = [100 * (blind_report(seed).way.share or 0.0) for seed in FURTHER_SEEDS]
    by_domain = ", ".join(f"{name} {100 * (way.share or 0.0):.0f} %" for name, way in report.domains.items())
    setting.say(by_domain)
    way = report.way
    interval = "" if way.low is None or way.high is None else f" (95 %: {100 * way.low:.0f} to {100 * way.high:.0f})"
    note = f"{way.queries} queries{interval}; {by_domain}; other trainings: {min(others):.0f} to {max(others):.0f} %"
    rows = [Row("router: way from random to oracle, blind queries", 100 * (way.share or 0.0), "%", None, note)]
    rows += [
        Row(f"router: quality of {policy.name}, blind queries", policy.quality, "of 1") for policy in report.policies
    ]
    return Result(rows, [], [], report.as_json())


def blind_report(seed: int) -> Report:
    """Train on the split of a seed, and evaluate on all blind queries."""
    known, blind = dataset.read(FILE), dataset.read(ANSWERS)
    table = table_of([*known, *blind])
    asked = {(answer.task_name, answer.query) for answer in blind}
    is_blind = np.array([(query.task_name, query.query) in asked for query in table.queries])
    learned, _ = split(table, share=SHARE, seed=seed)
    if is_blind[learned].any():
        raise RuntimeError("a blind query would be learned from")
    router = fit(table, learned, name="bench", methods=NGRAMS).router
    rules = RulesRouter(rules=RULES, purposes={})
    return evaluate(table, learned=learned, held_out=np.flatnonzero(is_blind), router=router, rules=rules)


SCENARIO = Scenario("router-blind", "The trained router on blind queries", run)
