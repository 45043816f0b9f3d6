from hypothesis import given
from hypothesis import strategies as st

from appliance.routing.candidates import AUTO, Endpoint, rank

CHAT = frozenset({"chat"})
names = st.sampled_from(["a", "b", "c", "d"])
endpoints = st.lists(
    st.builds(
        Endpoint,
        name=names,
        node=st.sampled_from(["attic", "cellar"]),
        url=st.just("http://127.0.0.1:1/v1"),
        capabilities=st.frozensets(st.sampled_from(["chat", "tools"])),
    ),
    unique_by=lambda e: (e.name, e.node),
)


def endpoint(name: str, *capabilities: str, node: str = "attic") -> Endpoint:
    return Endpoint(name, node, f"http://{node}/{name}/v1", frozenset(capabilities or ("chat",)))


def order(
    model: str, experts: list[Endpoint], fallbacks: tuple[str, ...] = (), needs: frozenset[str] = CHAT
) -> list[str]:
    return [found.name for found in rank(model, needs, experts, fallbacks)]


def test_the_named_expert_leads_then_the_fallbacks_then_the_others_by_name() -> None:
    experts = [endpoint(name) for name in "abcd"]
    assert order("c", experts, ("d", "b")) == ["c", "d", "b", "a"]


def test_auto_prefers_the_fallbacks_in_their_order() -> None:
    experts = [endpoint(name) for name in "abc"]
    assert order(AUTO, experts, ("b",)) == ["b", "a", "c"]


def test_an_expert_without_a_needed_capability_is_left_out_unless_it_is_asked_for() -> None:
    experts = [endpoint("a"), endpoint("b", "chat", "tools")]
    needs = frozenset({"chat", "tools"})
    assert order(AUTO, experts, needs=needs) == ["b"]
    assert order("a", experts, needs=needs) == ["a", "b"]


@given(endpoints, names | st.just(AUTO), st.lists(names, max_size=3, unique=True))
def test_every_able_endpoint_is_ranked_once(experts: list[Endpoint], model: str, fallbacks: list[str]) -> None:
    ranked = rank(model, CHAT, experts, fallbacks)
    assert len(set(ranked)) == len(ranked)
    assert set(ranked) == {e for e in experts if e.name == model or "chat" in e.capabilities}
    assert ranked == rank(model, CHAT, list(reversed(experts)), fallbacks), "the order does not depend on arrival"
