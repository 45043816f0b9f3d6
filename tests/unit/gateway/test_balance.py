from appliance.gateway.balance import Balance
from appliance.gateway.prefixes import BLOCK_BYTES, MAX_BLOCKS, PrefixMemory, blocks_of
from appliance.routing.candidates import Endpoint

PROMPT = bytes(range(256)) * 20


def endpoint(node: str, slots: int = 1) -> Endpoint:
    return Endpoint("small", node, f"http://{node}/v1", frozenset({"chat"}), slots=slots)


def test_a_block_is_known_only_with_all_that_comes_before_it() -> None:
    memory = PrefixMemory(None)
    memory.remember(blocks_of(PROMPT))
    assert memory.matched(blocks_of(PROMPT)) == 20
    assert memory.matched(blocks_of(PROMPT[:1000] + b"else" * 100)) == 3
    assert memory.matched(blocks_of(b"else" + PROMPT[4:])) == 0
    assert blocks_of(PROMPT[: BLOCK_BYTES - 1]) == []
    assert len(blocks_of(bytes(MAX_BLOCKS * BLOCK_BYTES * 2))) == MAX_BLOCKS


def test_what_an_endpoint_read_long_ago_is_forgotten_from_the_end() -> None:
    memory = PrefixMemory(cache_tokens=256 * 100 // 4)  # a hundred blocks
    first, second = (blocks_of(bytes([number]) * BLOCK_BYTES * 60) for number in (1, 2))
    memory.remember(first)
    memory.remember(second)
    assert memory.matched(second) == 60
    assert memory.matched(first) == 40


def test_the_endpoint_that_knows_the_prompt_wins() -> None:
    balance = Balance()
    one, other = endpoint("a"), endpoint("b")
    blocks = blocks_of(PROMPT)
    assert list(balance.sort([one, other], blocks)) == [one, other]
    balance.begin(other, blocks)
    balance.end(other)
    assert list(balance.sort([one, other], blocks)) == [other, one]
    assert list(balance.sort([one, other], blocks_of(b"x" * 1000))) == [one, other]


def test_it_does_not_win_when_it_has_too_much_to_do() -> None:
    balance = Balance()
    one, other = endpoint("a"), endpoint("b")
    blocks = blocks_of(PROMPT)
    balance.begin(other, blocks)
    assert list(balance.sort([one, other], blocks)) == [other, one]
    balance.begin(other, blocks)
    assert list(balance.sort([one, other], blocks)) == [one, other]
    balance.end(other)
    balance.end(other)
    assert list(balance.sort([one, other], blocks)) == [other, one]


def test_the_queue_is_measured_in_slots() -> None:
    balance = Balance()
    wide, narrow = endpoint("a", slots=8), endpoint("b", slots=1)
    for _ in range(4):
        balance.begin(wide, [])
    balance.begin(narrow, [])
    assert list(balance.sort([narrow, wide], [])) == [wide, narrow]


def test_requests_of_others_count_and_our_own_are_not_counted_twice() -> None:
    balance = Balance()
    one, other = endpoint("a"), endpoint("b")
    balance.begin(one, [])
    balance.told("a", 3)
    assert balance.load(one) == 3
    balance.end(one)
    assert balance.load(one) == 2
    assert list(balance.sort([one, other], [])) == [other, one]
    balance.forget_node("a")
    assert balance.load(one) == 0


def test_an_expert_that_started_anew_knows_nothing() -> None:
    balance = Balance()
    one, other = endpoint("a"), endpoint("b")
    blocks = blocks_of(PROMPT)
    balance.begin(other, blocks)
    balance.end(other)
    balance.forget(other.key)
    assert list(balance.sort([one, other], blocks)) == [one, other]
