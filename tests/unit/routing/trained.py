"""Small trained routers for tests."""

import numpy as np

from appliance.routing.features import NgramFeaturiser
from appliance.routing.model import FactorsHead, Head, LogisticHead, NeighboursHead, TrainedRouter

BITS, PLACES, FACTORS, KNOWN = 8, 6, 2, 5


def router(
    kind: str = "logistic",
    *,
    name: str = "v1",
    experts: tuple[str, ...] = ("big", "small"),
    with_projection: bool = False,
    cost_weight: float = 0.1,
) -> TrainedRouter:
    random = np.random.default_rng(1)
    features = PLACES if with_projection else 1 << BITS

    def numbers(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return random.random(shape, np.float32)

    head: Head
    if kind == "logistic":
        head = LogisticHead(numbers(features, len(experts)), numbers(len(experts)))
    elif kind == "neighbours":
        head = NeighboursHead(numbers(features, KNOWN), numbers(KNOWN, len(experts)), count=3)
    else:
        head = FactorsHead(
            numbers(features, FACTORS), numbers(FACTORS), numbers(FACTORS, len(experts)), numbers(len(experts))
        )
    return TrainedRouter(
        name=name,
        experts=experts,
        featuriser=NgramFeaturiser(BITS),
        projection=numbers(1 << BITS, PLACES) if with_projection else None,
        head=head,
        costs=np.linspace(1, 0, len(experts), dtype=np.float32),
        cost_weight=cost_weight,
    )
