"""A data set as numbers: queries by experts, and which queries are learned from and which are held out."""

import hashlib
import random
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from appliance.routing.dataset import Answer, Query
from appliance.routing.errors import TrainingError

type Numbers = NDArray[np.float64]
type Rows = NDArray[np.int64]
"""Positions of queries."""


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """What each expert's answer to each query was worth and cost; every pair is there."""

    queries: tuple[Query, ...]
    experts: tuple[str, ...]
    qualities: Numbers
    """Queries x experts, 0 to 1."""
    costs: Numbers
    """Queries x experts, in the data set's unit."""
    incomplete: int
    """Queries left out because not all experts answered them."""

    def texts(self, rows: Rows) -> list[str]:
        """Return what the router sees."""
        return [self.queries[row].query for row in rows]

    def relative_costs(self, rows: Rows) -> Numbers:
        """Return the experts' mean costs, 1 for the dearest."""
        means: Numbers = self.costs[rows].mean(axis=0)
        return means / (means.max() or 1.0)


def table_of(answers: Iterable[Answer]) -> Table:
    """Arrange a data set; the last answer of an expert to a query counts.

    Raises:
        TrainingError: there are fewer than two experts, or no query that all answered.
    """
    by_query: dict[tuple[str, str, str, str], dict[str, Answer]] = {}
    for answer in answers:
        key = (answer.task_name, answer.query, answer.ground_truth, answer.metric)
        by_query.setdefault(key, {})[answer.model_name] = answer
    experts = tuple(sorted({name for found in by_query.values() for name in found}))
    if len(experts) < 2:
        raise TrainingError("the data set holds fewer than two experts: there is nothing to choose from")
    whole = [found for found in by_query.values() if len(found) == len(experts)]
    if not whole:
        raise TrainingError("no query was answered by all experts; run `rouse router generate` again to fill the gaps")
    return Table(
        queries=tuple(found[experts[0]] for found in whole),
        experts=experts,
        qualities=np.array([[found[name].performance for name in experts] for found in whole]),
        costs=np.array([[found[name].price for name in experts] for found in whole]),
        incomplete=len(by_query) - len(whole),
    )


def split(table: Table, *, share: float, seed: int) -> tuple[Rows, Rows]:
    """Return the rows to learn from and those held out: whole templates, about `share` of each domain's.

    Queries marked as held out are never learned from.

    Raises:
        TrainingError: nothing would be left on one of the sides.
    """
    templates: dict[str, dict[str, None]] = {}
    for query in table.queries:
        if not query.held_out:
            templates.setdefault(query.task_name, {})[query.template] = None
    out: set[str] = set()
    for domain, names in sorted(templates.items()):
        shuffled = sorted(names)
        random.Random(f"{seed} {domain}").shuffle(shuffled)  # noqa: S311 - repeatable, not secret
        out.update(shuffled[: round(share * len(shuffled))])
    held = np.array([query.held_out or query.template in out for query in table.queries])
    learned, held_out = np.flatnonzero(~held), np.flatnonzero(held)
    if not len(learned) or not len(held_out):
        raise TrainingError("too few templates to learn from some and hold others out; generate more queries")
    return learned, held_out


def fingerprint(template: str) -> str:
    """Return what stands for a template in a version's manifest."""
    return hashlib.sha256(template.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def split_by(table: Table, learned: Collection[str]) -> tuple[Rows, Rows]:
    """Return the rows of templates with these fingerprints, and those of all others.

    Raises:
        TrainingError: there are no others.
    """
    known = np.array([fingerprint(query.template) in learned for query in table.queries])
    rows, held_out = np.flatnonzero(known), np.flatnonzero(~known)
    if not len(held_out):
        raise TrainingError("the version learned from every query of the data set; generate others to evaluate with")
    return (rows if len(rows) else held_out), held_out


def folds(table: Table, rows: Rows, count: int) -> Sequence[tuple[Rows, Rows]]:
    """Return `count` splits of the rows by template, for choosing between methods."""
    names = sorted({table.queries[row].template for row in rows})
    random.Random(0).shuffle(names)  # noqa: S311 - repeatable, not secret
    fold_of = {name: position % count for position, name in enumerate(names)}
    numbers = np.array([fold_of[table.queries[row].template] for row in rows])
    found = [(rows[numbers != fold], rows[numbers == fold]) for fold in range(count)]
    return [(learn, check) for learn, check in found if len(learn) and len(check)]
