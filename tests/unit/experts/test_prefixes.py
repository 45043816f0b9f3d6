from hypothesis import given
from hypothesis import strategies as st

from appliance.experts.engine.prefixes import SlotPrefixes, common_prefix

TOKENS = st.lists(st.integers(0, 2), max_size=12)


@given(TOKENS, TOKENS)
def test_common_prefix(first: list[int], second: list[int]) -> None:
    length = common_prefix(first, second)
    assert first[:length] == second[:length]
    assert first[: length + 1] != second[: length + 1] or length == min(len(first), len(second))


def fill(prefixes: SlotPrefixes, *prompts: list[int]) -> None:
    slots = [prefixes.claim(prompt).slot for prompt in prompts]
    for slot, prompt in zip(slots, prompts, strict=True):
        slot.tokens[:] = prompt
        prefixes.release(slot)


def test_the_longest_common_prefix_wins_and_one_token_is_left_to_compute() -> None:
    prefixes = SlotPrefixes(3)
    fill(prefixes, [1, 2, 3], [1, 2, 4, 5])
    claim = prefixes.claim([1, 2, 4, 5])
    assert claim.slot is claim.donor
    assert claim.slot.tokens == [1, 2, 4, 5]
    assert claim.shared == 3


def test_a_long_conversation_lends_its_beginning_and_stays() -> None:
    prefixes = SlotPrefixes(2)
    fill(prefixes, [1, 2, *range(10, 30)])
    claim = prefixes.claim([1, 2, 3])
    assert claim.slot is not claim.donor
    assert claim.shared == 2
    assert not claim.slot.tokens


def test_a_busy_slot_lends_too() -> None:
    prefixes = SlotPrefixes(2)
    busy = prefixes.claim([1, 2, 3]).slot
    busy.tokens[:] = [1, 2, 3]
    claim = prefixes.claim([1, 2, 3])
    assert claim.donor is busy
    assert claim.slot is not busy
    assert claim.shared == 2


def test_the_least_recently_used_slot_goes_first() -> None:
    prefixes = SlotPrefixes(2)
    fill(prefixes, [1, 1], [2, 2])
    oldest = prefixes.evict()
    assert oldest is not None
    assert oldest.tokens == [1, 1]
    assert prefixes.claim([3, 3]).slot is oldest
    assert prefixes.used == 4
