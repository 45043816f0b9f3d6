from pathlib import Path

import pytest

from appliance.routing.arithmetic import compute
from appliance.routing.domains import DOMAINS
from appliance.routing.errors import SeedsError
from appliance.routing.prompts import queries_of, read_seeds
from appliance.routing.scoring import score

TASK = "domain: maths\ntasks:\n  - id: plus\n    metric: number\n    queries: {en: ['What is $a?']}\n"


def test_the_shipped_seeds_are_many_varied_and_checkable() -> None:
    queries = queries_of(read_seeds(), per_template=4, seed=1)
    assert {query.task_name for query in queries} == set(DOMAINS)
    assert {query.language for query in queries if query.task_name == "home-control"} == {"en", "de", "fr", "es"}
    assert len({(query.task_name, query.query) for query in queries}) == len(queries) > 250
    for query in queries:
        assert "$" not in query.query
        if query.metric in {"number", "json", "tool_call"}:
            assert score(query.metric, query.ground_truth, query.ground_truth) == 1.0
        assert score(query.metric, query.ground_truth, "") in {0.0, None}
    assert any(query.held_out for query in queries)


def test_the_same_seed_gives_the_same_queries() -> None:
    seeds = read_seeds()
    assert queries_of(seeds, per_template=3, seed=7) == queries_of(seeds, per_template=3, seed=7)
    assert queries_of(seeds, per_template=3, seed=7) != queries_of(seeds, per_template=3, seed=8)


def test_answers_are_computed(tmp_path: Path) -> None:
    text = TASK.replace(
        "    queries", "    compute: (a + 1) / 2\n    answer: $result\n    values: {a: [4]}\n    queries"
    )
    (tmp_path / "x.yaml").write_text(text)
    (query,) = queries_of(read_seeds(tmp_path), per_template=3, seed=1)
    assert (query.query, query.ground_truth, query.template) == ("What is 4?", "2.5", "maths/plus/en0")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "valid dictionary|SeedFile"),
        ("domain: [", "can't be read"),
        ("domain: poems\ntasks: []", "domain"),
        (TASK, "answer"),
        (TASK.replace("metric: number", "metric: taste\n    answer: x"), "metric"),
        ("domain: maths\nsurprise: 1\ntasks: []", "surprise"),
        ("!!python/object/apply:os.system ['true']", "can't be read"),
    ],
)
def test_wrong_seeds(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(SeedsError, match=message):
        read_seeds(tmp_path)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("metric: number, answer: '12,5', queries: {en: [x]}", "'12,5' is no number"),
        ("metric: regex, answer: (, queries: {en: [x]}", "no regular expression"),
        ("metric: json, answer: '[1]', queries: {en: [x]}", "no JSON object"),
        ('metric: exact, answer: x, queries: {en: ["\\ud83d"]}', "half a character"),
        ("metric: exact, answer: x, values: {a: {from: 9, to: 2}}, queries: {en: [x]}", "empty range"),
    ],
)
def test_what_can_not_be_scored_is_named_with_file_and_line(tmp_path: Path, lines: str, message: str) -> None:
    good = "domain: maths\ntasks:\n  - {id: good, metric: exact, answer: x, queries: {en: [y]}}\n"
    (tmp_path / "x.yaml").write_text(f"{good}  - {{id: bad, {lines}}}\n")
    with pytest.raises(SeedsError, match=message) as caught:
        queries_of(read_seeds(tmp_path), per_template=1, seed=1)
    assert str(caught.value).startswith(f"{tmp_path / 'x.yaml'}:4: maths/bad/en0: ")


def test_a_wrong_task_is_named_with_its_line(tmp_path: Path) -> None:
    good = TASK.replace("metric: number", "metric: exact\n    answer: x")
    (tmp_path / "x.yaml").write_text(good + TASK.partition("tasks:\n")[2])
    with pytest.raises(SeedsError, match=r"x\.yaml:7: tasks\.1\.answer: Field required"):
        read_seeds(tmp_path)
    (tmp_path / "x.yaml").write_text("domain: 2026-99-99")
    with pytest.raises(SeedsError, match="can't be read"):
        read_seeds(tmp_path)


def test_a_value_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(TASK.replace("    queries", "    answer: $b\n    queries"))
    with pytest.raises(SeedsError, match=r"maths/plus/en0: there is no value 'a'"):
        queries_of(read_seeds(tmp_path), per_template=1, seed=1)
    with pytest.raises(SeedsError, match=r"holds no \.yaml"):
        read_seeds(tmp_path / "empty")


@pytest.mark.parametrize(
    "expression", ["__import__('os')", "a.b", "2 ** 9", "1 / 0", "b + 1", "'x' * 9", "(", "1" * 300]
)
def test_arithmetic_alone_is_computed(expression: str) -> None:
    with pytest.raises(ValueError, match=r"number|computed|longer"):
        compute(expression, {"a": 1})


def test_arithmetic() -> None:
    assert compute("(a + 3) * 2 - 1", {"a": 4}) == "13"
    assert compute("a / 4", {"a": 10}) == "2.5"
