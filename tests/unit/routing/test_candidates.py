from hypothesis import given
from hypothesis import strategies as st

from appliance.routing.candidates import AUTO, Endpoint, Policy, rank, unfit
from appliance.routing.decision import Decision

names = st.sampled_from(["a", "b", "c", "d"])
endpoints = st.lists(
    st.builds(
        Endpoint,
        name=names,
        node=st.sampled_from(["attic", "cellar"]),
        url=st.just("http://127.0.0.1:1/v1"),
        capabilities=st.frozensets(st.sampled_from(["chat", "tools"])),
        priority=st.integers(-1, 1),
    ),
    unique_by=lambda e: (e.name, e.node),
)


def endpoint(name: str, *capabilities: str, node: str = "attic", priority: int = 0) -> Endpoint:
    return Endpoint(
        name, node, f"http://{node}/{name}/v1", frozenset(capabilities or ("chat",)), context=512, priority=priority
    )


def order(there: list[Endpoint], decision: Decision | None = None, **policy: object) -> list[list[str]]:
    tiers = rank(there, Policy(**policy), decision)  # type: ignore[arg-type]
    return [[found.name for found in tier.endpoints] for tier in tiers]


def test_the_named_expert_leads_then_the_fallbacks_then_the_others_as_equals() -> None:
    experts = [endpoint(name) for name in "edcba"]
    assert order(experts, experts=("c",), fallbacks=("d",), always_on="b") == [["c"], ["d"], ["b"], ["a", "e"]]


def test_auto_prefers_the_fallbacks_in_their_order() -> None:
    assert order([endpoint(name) for name in "abc"], fallbacks=("c", "b")) == [["c"], ["b"], ["a"]]


def test_the_routers_choice_then_the_agents_list_then_what_is_always_on() -> None:
    experts = [endpoint(name) for name in "abcdef"]
    decision = Decision(experts=("e", "d", "a"), router="knn-3", reason="It is about maths.")
    policy = Policy(experts=(AUTO, "c"), source="agent", fallbacks=("b",), always_on="f")
    tiers = rank(experts, policy, decision)
    assert [[one.name for one in tier.endpoints] for tier in tiers] == [["e"], ["c"], ["b"], ["f"], ["d"], ["a"]]
    assert [tier.router for tier in tiers] == ["knn-3", "agent", "settings", "settings", "knn-3", "knn-3"]
    assert tiers[0].reason == "It is about maths."


def test_experts_of_the_same_score_are_equal() -> None:
    decision = Decision(experts=("c", "a", "b"), router="r", reason="", scores={"a": 0.5, "b": 0.1, "c": 0.5})
    assert order([endpoint(name) for name in "abc"], decision) == [["c", "a"], ["b"]]


def test_a_router_that_names_experts_that_are_not_there_does_no_harm() -> None:
    assert order([endpoint("a")], Decision(experts=("x", "y"), router="r", reason="")) == [["a"]]
    assert order([endpoint("a")], Decision(experts=(), router="r", reason="")) == [["a"]]


def test_the_same_expert_on_several_nodes_is_equal() -> None:
    experts = [endpoint("a", node="attic"), endpoint("a", node="cellar"), endpoint("b")]
    assert order(experts, experts=("a",)) == [["a", "a"], ["b"]]


def test_the_houses_own_experts_come_before_external_ones_unless_they_are_ranked() -> None:
    experts = [endpoint("a", priority=-1), endpoint("b")]
    assert order(experts) == [["b"], ["a"]]
    assert order(experts, fallbacks=("a",)) == [["a"], ["b"]]


def test_what_an_expert_can_not_do() -> None:
    assert unfit(endpoint("a"), frozenset({"chat", "tools"}), 10) == "capability"
    assert unfit(endpoint("a"), frozenset({"chat"}), 512 * 16) is None
    assert unfit(endpoint("a"), frozenset({"chat"}), 512 * 16 + 1) == "context"


@given(endpoints, names | st.just(AUTO), st.lists(names, max_size=3), st.lists(names, max_size=4) | st.none())
def test_every_endpoint_is_ranked_once(
    experts: list[Endpoint], model: str, fallbacks: list[str], choice: list[str] | None
) -> None:
    decision = None if choice is None else Decision(experts=tuple(choice), router="r", reason="")
    policy = Policy(experts=(model,), fallbacks=tuple(fallbacks))
    ranked = [one for tier in rank(experts, policy, decision) for one in tier.endpoints]
    assert sorted(one.key for one in ranked) == sorted(one.key for one in experts)
    backwards = [one for tier in rank(experts[::-1], policy, decision) for one in tier.endpoints]
    assert [one.name for one in ranked] == [one.name for one in backwards], "the order does not depend on arrival"
