import numpy as np
import pytest

from appliance.routing.model import LogisticHead, NeighboursHead
from tests.unit.routing.trained import router


@pytest.mark.parametrize("kind", ["logistic", "neighbours", "factors"])
@pytest.mark.parametrize("with_projection", [False, True])
def test_every_head_ranks_all_experts_with_qualities_between_0_and_1(kind: str, *, with_projection: bool) -> None:
    trained = router(kind, with_projection=with_projection, experts=("a", "b", "c"))
    qualities = trained.qualities(["Turn on the light", "", "x"])
    assert qualities.shape == (3, 3)
    assert qualities.min() >= 0
    assert qualities.max() <= 1
    decision = trained.choose("Turn on the light", ["c", "a"])
    assert set(decision.experts) == {"a", "c"}
    assert decision.scores[decision.experts[0]] >= decision.scores[decision.experts[1]]
    assert decision.router == "v1"
    assert decision.experts[0] in decision.reason


def test_logistic() -> None:
    head = LogisticHead(np.array([[2.0, -2.0]], np.float32), np.array([0.0, 1.0], np.float32))
    qualities = head.qualities(np.array([[1.0]], np.float32))
    assert qualities[0] == pytest.approx([1 / (1 + np.exp(-2)), 1 / (1 + np.exp(1))], abs=1e-6)


def test_neighbours_are_weighted_by_their_likeness() -> None:
    points = np.eye(3, dtype=np.float32)
    known = np.array([[1, 0], [0, 1], [0.5, 0.5]], np.float32)
    nearest = NeighboursHead(points, known, count=1)
    assert nearest.qualities(np.array([[0, 1, 0]], np.float32))[0] == pytest.approx([0, 1])
    all_alike = NeighboursHead(points, known, count=99, sharpness=0)
    assert all_alike.qualities(np.array([[0, 1, 0]], np.float32))[0] == pytest.approx([0.5, 0.5])


def test_cost_decides_between_equals() -> None:
    costly = router(experts=("big", "small"), cost_weight=100)
    assert costly.choose("hello", ["big", "small"]).experts == ("small", "big")


def test_unknown() -> None:
    assert router().unknown(["big", "new"]) == ("new",)
    assert router().choose("x", []).experts == ()
