from appliance.routing import dataset
from appliance.routing.prompts import queries_of, read_seeds
from appliance.routing.scoring import score
from tests.benchmarks.router_blind import ANSWERS, QUERIES
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
