"""How good a router's choices are on held-out queries, beside chance, fixed choices and hindsight.

The share of the way from random to oracle is the counterpart of RouteLLM's performance gap recovered
(https://arxiv.org/abs/2406.18665, section 2), with the random choice as its lower end.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from appliance.charts import Axis, Chart, Series
from appliance.routing.decision import Router
from appliance.routing.errors import TrainingError
from appliance.routing.model import TrainedRouter
from appliance.routing.table import Numbers, Rows, Table

RESAMPLES = 2000
CURVE = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0, 1.5, 2.0, 4.0)
"""Cost weights."""


@dataclass(frozen=True, slots=True)
class Policy:
    """A way to choose, on the held-out queries."""

    name: str
    quality: float
    """Mean, 0 to 1."""
    cost: float
    """Mean, in the data set's unit."""


@dataclass(frozen=True, slots=True)
class Way:
    """The share of the way from the random choice to the oracle's."""

    share: float | None
    """1 is the oracle; None: the random choice is as good as the oracle's, so there is no way."""
    low: float | None
    high: float | None
    """The 95 % interval by a bootstrap over templates."""
    queries: int
    templates: int


@dataclass(frozen=True, slots=True)
class Report:
    """What an evaluation found."""

    policies: tuple[Policy, ...]
    way: Way
    domains: dict[str, Way]
    never_learned: Way | None
    """Only the queries of tasks that were marked as held out: nothing alike was learned from."""
    curve: tuple[tuple[float, float, float], ...]
    """Cost weight, mean cost, mean quality of the router's choices."""
    errors: tuple[tuple[str, str, str], ...]
    """Query, chosen expert, an expert that was better."""

    def as_json(self) -> dict[str, Any]:
        """Return it for a script."""
        return asdict(self)

    def chart(self) -> Chart:
        """Return the cost-quality curve."""
        points = sorted({(cost, quality) for _, cost, quality in self.curve})
        fixed = [Series(policy.name, [(policy.cost, policy.quality)]) for policy in self.policies]
        return Chart(
            "Quality and cost by router",
            Axis("mean cost of an answer (s)"),
            Axis("mean quality"),
            [Series("router, by cost weight", points), *fixed],
        )


def evaluate(
    table: Table, *, learned: Rows, held_out: Rows, router: TrainedRouter, rules: Router | None = None
) -> Report:
    """Compare the router with the other ways to choose.

    Args:
        table: the data set.
        learned: the queries that the router, and the choice of the best single expert, may know.
        held_out: those that count.
        router: the router.
        rules: another router to compare.

    Raises:
        TrainingError: the router does not know the data set's experts.
    """
    if set(router.experts) != set(table.experts):
        raise TrainingError(
            f"the router {router.name} knows {', '.join(router.experts)}, "
            f"the data set {', '.join(table.experts)}: train again"
        )
    texts = table.texts(held_out)
    columns = np.array([table.experts.index(name) for name in router.experts])
    expected = router.qualities(texts)
    qualities, costs = table.qualities[held_out], table.costs[held_out]

    def chosen_with(weight: float) -> Rows:
        return np.asarray(columns[(expected - weight * router.costs).argmax(axis=1)])

    def policy(name: str, chosen: Rows) -> Policy:
        rows = np.arange(len(held_out))
        return Policy(name, float(qualities[rows, chosen].mean()), float(costs[rows, chosen].mean()))

    def always(column: int) -> Rows:
        return np.full(len(held_out), column)

    chosen = chosen_with(router.cost_weight)
    # Of equally good answers hindsight takes the cheapest.
    oracle = (qualities - 1e-9 * costs).argmax(axis=1)
    policies = [
        Policy("random", float(qualities.mean()), float(costs.mean())),
        policy("always cheapest", always(int(table.costs[learned].mean(axis=0).argmin()))),
        policy("always best", always(int(table.qualities[learned].mean(axis=0).argmax()))),
        policy("router", chosen),
        policy("oracle", oracle),
    ]
    if rules is not None:
        policies.insert(3, policy("rules", _by_rules(rules, table, texts)))
    rows = np.arange(len(held_out))
    gained, best, chance = qualities[rows, chosen], qualities.max(axis=1), qualities.mean(axis=1)
    queries = [table.queries[row] for row in held_out]

    def way(which: NDArray[np.bool_]) -> Way:
        templates = [queries[row].template for row in np.flatnonzero(which)]
        return _way(gained[which], best[which], chance[which], templates)

    domains = np.array([query.task_name for query in queries])
    never = np.array([query.held_out for query in queries])
    return Report(
        policies=tuple(policies),
        way=way(np.full(len(queries), fill_value=True)),
        domains={str(name): way(domains == name) for name in sorted(set(domains))},
        never_learned=way(never) if never.any() else None,
        curve=tuple(
            (weight, found.cost, found.quality) for weight in CURVE for found in (policy("", chosen_with(weight)),)
        ),
        errors=tuple(
            (queries[row].query, table.experts[chosen[row]], table.experts[oracle[row]])
            for row in rows
            if gained[row] < best[row]
        ),
    )


def _by_rules(rules: Router, table: Table, texts: Sequence[str]) -> Rows:
    """Return what a router without scores chooses; the first expert where it chooses none."""
    firsts = [rules.choose(text, table.experts).experts[:1] for text in texts]
    return np.array([table.experts.index(first[0]) if first else 0 for first in firsts])


def _way(gained: Numbers, best: Numbers, chance: Numbers, templates: Sequence[str]) -> Way:
    names = sorted(set(templates))
    numbers = np.array([names.index(template) for template in templates])
    # Per template: how far the router and the oracle are above chance.
    above = np.bincount(numbers, gained - chance, minlength=len(names))
    most = np.bincount(numbers, best - chance, minlength=len(names))
    share = float(above.sum() / most.sum()) if most.sum() > 0 else None
    random = np.random.default_rng(0)
    drawn = random.integers(0, len(names), (RESAMPLES, len(names)))
    ends = most[drawn].sum(axis=1)
    shares = above[drawn].sum(axis=1)[ends > 0] / ends[ends > 0]
    low, high = np.quantile(shares, [0.025, 0.975]) if len(shares) else (None, None)
    return Way(
        share, None if low is None else float(low), None if high is None else float(high), len(templates), len(names)
    )
