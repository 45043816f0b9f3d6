"""The learnt queries that a text is most like, as a router sees texts: what its expectation comes from."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from appliance.routing.model import TrainedRouter
from appliance.routing.table import Rows, Table


@dataclass(frozen=True, slots=True)
class Near:
    """A learnt query."""

    query: str
    likeness: float
    """The cosine of the two texts' features, 1 for the same."""
    qualities: Mapping[str, float]
    """By expert: what its answer was worth."""


def nearest(router: TrainedRouter, text: str, *, table: Table, learned: Rows, count: int) -> list[Near]:
    """Return the most similar of the learnt queries, the nearest first."""
    likeness = router.features(table.texts(learned)) @ router.features([text])[0]
    found = np.argsort(-likeness, kind="stable")[:count]
    return [
        Near(
            table.queries[learned[place]].query,
            float(likeness[place]),
            dict(zip(table.experts, map(float, table.qualities[learned[place]]), strict=True)),
        )
        for place in found
    ]
