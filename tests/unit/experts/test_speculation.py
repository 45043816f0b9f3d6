from appliance.experts.engine.costs import StepCosts
from appliance.experts.engine.speculation import PromptLookup
from appliance.experts.tuning.costs import Cost, CostModel

POEM = list(range(50))
COSTS = StepCosts(
    CostModel(
        decode=(Cost(tokens=1, milliseconds=10), Cost(tokens=2, milliseconds=15)),
        prefill=(Cost(tokens=1, milliseconds=10), Cost(tokens=16, milliseconds=85)),
    )
)
"""A token costs half as much as a step."""


def test_the_chance_of_a_guess_is_learnt_from_the_answer_alone() -> None:
    lookup = PromptLookup(POEM)
    assert COSTS.draft_tokens(lookup.chance, 4) == 0
    for token in POEM:
        lookup.add(token)
    assert lookup.chance > 0.9
    assert COSTS.draft_tokens(lookup.chance, 8) > 4
    assert lookup.guess(5) == POEM[:5]
    for other in range(100, 110):
        for token in (0, 1, other):
            lookup.add(token)
    assert lookup.chance < 0.5
    assert COSTS.draft_tokens(lookup.chance, 8) == 0


def test_what_was_never_said_is_not_guessed() -> None:
    lookup = PromptLookup([1, 2, 3])
    lookup.add(4)
    assert lookup.guess(4) == []
    assert PromptLookup([]).guess(4) == []


def test_without_costs_nothing_is_drafted() -> None:
    assert StepCosts().draft_tokens(1.0, 4) == 0
