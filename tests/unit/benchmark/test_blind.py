from appliance.routing import dataset
from appliance.routing.evaluation import Policy, Report, Way
from appliance.routing.prompts import queries_of, read_seeds
from appliance.routing.scoring import score
from tests.benchmarks.router_blind import ANSWERS, QUERIES, rows_of
from tests.benchmarks.router_data import FILE


def test_the_answers_are_those_to_the_queries_and_scored_as_now() -> None:
    queries = {(one.task_name, one.query): one for one in queries_of(read_seeds(QUERIES), per_template=1, seed=1)}
    answers = dataset.read(ANSWERS)
    experts = {answer.model_name for answer in dataset.read(FILE)}
    assert len(answers) == len(queries) * len(experts)
    assert {answer.model_name for answer in answers} == experts
    for answer in answers:
        query = queries[answer.task_name, answer.query]
        assert (answer.task_id, answer.ground_truth, answer.metric) == (query.task_id, query.ground_truth, query.metric)
        assert answer.performance == score(query.metric, query.ground_truth, answer.response)


def test_no_blind_query_or_template_is_learned_from() -> None:
    blind, known = dataset.read(ANSWERS), dataset.read(FILE)
    seeds = queries_of(read_seeds(), per_template=1000, seed=1)
    assert all(answer.held_out for answer in blind)
    assert not {answer.query for answer in blind} & {query.query for query in (*known, *seeds)}
    assert not {answer.template for answer in blind} & {query.template for query in (*known, *seeds)}


def test_the_goal_is_held_against_the_queries_of_another_hand() -> None:
    way = Way(0.848, 0.77, 0.92, 109, 109)
    report = Report((Policy("router", 0.78, 2.4),), way, {"maths": way}, None, (), ())
    first, *others = rows_of(report, [80.0, 90.0])
    assert (first.must, first.verdict) == (("at least", 90.0), "FAIL")
    assert first.note == "109 queries (95 %: 77 to 92); maths 85 %; other trainings: 80 to 90 %"
    assert [row.verdict for row in others] == [""]
