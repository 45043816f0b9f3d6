"""The prefix cache against a context that checks every move of a cell."""

import random
from dataclasses import replace

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from appliance.experts.backend import Run
from appliance.experts.prefixes.cache import PrefixCache
from appliance.experts.prefixes.images import Image, ImageShelf
from appliance.experts.prefixes.tree import Cached, PrefixTree, common_prefix
from appliance.experts.settings import EngineSettings
from tests.unit.experts.fake_backend import FakeBackend

TOKENS = st.lists(st.integers(0, 2), max_size=12)


@given(TOKENS, TOKENS)
def test_common_prefix(first: list[int], second: list[int]) -> None:
    length = common_prefix(first, second)
    assert first[:length] == second[:length]
    assert first[: length + 1] != second[: length + 1] or length == min(len(first), len(second))


@given(st.lists(TOKENS.filter(bool), max_size=8), TOKENS)
def test_a_tree_matches_as_a_search_over_all_would(held: list[list[int]], wanted: list[int]) -> None:
    tree = PrefixTree()
    for seq, tokens in enumerate(held):
        node = tree.find(tokens)
        if node.end < len(tokens):
            node = tree.extend(node, tokens[node.end :])
        node.cached.append(Cached(seq, node, tokens, busy=False))
    assert tree.match(wanted) == max((common_prefix(tokens, wanted) for tokens in held), default=0)
    prefixes = {tuple(tokens[:length]) for tokens in held for length in range(1, len(tokens) + 1)}
    assert tree.size == len(prefixes)
    for leaf in list(tree.leaves()):
        assert leaf.path() == leaf.holder().tokens
        leaf.cached.clear()
        tree.prune(leaf)


class House:
    """A cache, its context, and prompts that are computed as the scheduler would."""

    def __init__(self, *, divisible: bool = True, **fields: int) -> None:
        values = {"context_tokens": 512, "batch_tokens": 512, "slots": 4, "idle_sequences": 3, **fields}
        self.settings = EngineSettings.model_validate(values)
        self.backend = FakeBackend(self.settings, divisible=divisible)
        self.cache = PrefixCache(self.backend, self.settings)

    def begin(self, prompt: list[int]) -> tuple[Cached, int]:
        """Claim and compute; return the sequence and how many tokens were known."""
        cached, use = self.cache.claim(prompt)
        self.cache.tidy()
        known = use.cells + use.memory
        assert known == len(cached.tokens) < len(prompt)
        assert self.backend.tokens(cached.seq) == prompt[:known]
        while len(cached.tokens) < len(prompt):
            at = len(cached.tokens)
            end = cached.checkpoint if cached.checkpoint > at else len(prompt)
            self.add(cached, prompt[at:end])
            if cached.checkpoint == end:
                self.cache.checkpoint(cached)
        return cached, known

    def add(self, cached: Cached, tokens: list[int]) -> None:
        self.cache.make_room(len(tokens))
        self.backend.decode([Run(cached.seq, len(cached.tokens), tokens, outputs=1)])
        cached.tokens.extend(tokens)
        self.cache.pass_over()
        self.check()

    def check(self) -> None:
        assert self.backend.used <= self.cache.used or not self.backend.divisible

    def ask(self, prompt: list[int]) -> int:
        cached, known = self.begin(prompt)
        self.cache.release(cached, keep=True)
        self.check()
        return known


def text(name: str, length: int) -> list[int]:
    generator = random.Random(name)
    return [generator.randrange(250) for _ in range(length)]


SYSTEM = text("system", 200)


def test_a_shared_beginning_is_shared_at_once_and_its_cells_are_counted_once() -> None:
    house = House()
    first, known = house.begin([*SYSTEM, 1, 2])
    assert known == 0
    second, known = house.begin([*SYSTEM, 3, 4])
    assert known == 200
    assert house.backend.used == house.cache.used == 204
    house.cache.release(first, keep=True)
    house.cache.release(second, keep=False)
    assert house.backend.used == house.cache.used == 202
    assert house.ask([*SYSTEM, 3, 4]) == 200


def test_a_conversation_goes_on_where_it_was() -> None:
    house = House()
    history = SYSTEM
    for turn in range(5):
        question = text(f"turn {turn}", 20)
        assert house.ask(history + question) == (len(history) if turn else 0)
        history = history + question


def test_cold_prefixes_go_to_memory_and_come_back() -> None:
    house = House()
    prompts = [text(f"conversation {number}", 150) for number in range(6)]
    for prompt in prompts:
        assert house.ask(prompt) == 0
    assert house.cache.idle == 150  # the last one, until another comes
    for prompt in prompts:
        assert house.ask([*prompt, 1]) == 150


def test_of_two_that_take_turns_neither_is_computed_again() -> None:
    house = House()
    first, second = text("first", 300), text("second", 300)
    for turn in range(6):
        for prompt in (first, second):
            assert (house.ask([*prompt, turn]) >= 300) == (turn > 0)


def test_a_tail_is_parked_without_the_beginning_that_stays() -> None:
    house = House()
    for number in range(8):
        house.ask(SYSTEM + text(f"tail {number}", 100))
    sizes = [len(image.tokens) - image.start for image in house.cache.shelf._images.values()]
    assert sizes
    assert max(sizes) == 100
    assert house.ask(SYSTEM + text("tail 0", 100) + [1]) == 300


def test_what_steps_pass_over_for_long_goes_to_memory() -> None:
    house = House(idle_steps=4)
    other, _ = house.begin(text("other", 10))
    house.ask([*SYSTEM, 1])
    for token in range(8):
        assert house.cache.idle == (201 if token < 4 else 0)
        house.add(other, [token])
    assert house.cache.used == 18
    house.cache.release(other, keep=True)
    assert house.ask([*SYSTEM, 1, 1]) == 201


def test_in_quiet_times_all_but_the_last_prompt_goes_to_memory() -> None:
    house = House()
    running = [house.begin(text(f"conversation {number}", 50))[0] for number in range(3)]
    for cached in running:
        house.cache.release(cached, keep=True)
    assert house.cache.idle == 150
    while house.cache.wants_tidying:
        house.cache.tidy_next()
    assert house.cache.idle == 50
    assert house.backend.last_cell == 50
    cached, use = house.cache.claim([*text("conversation 2", 50), 1])
    assert (use.cells, use.memory) == (50, 0)
    house.cache.release(cached, keep=False)
    assert house.ask([*text("conversation 0", 50), 1]) == 50


def test_what_the_memory_has_no_room_for_stays_in_cells() -> None:
    house = House(parked_bytes=1000, idle_steps=4)
    house.ask(SYSTEM)
    cached, _ = house.begin(text("other", 10))
    for token in range(8):
        house.add(cached, [token])
    assert house.cache.idle == 200
    house.cache.release(cached, keep=True)
    assert house.ask([*SYSTEM, 1]) == 200


def test_everything_parked_comes_back_through_its_bases() -> None:
    house = House()
    for number in range(3):
        house.ask(SYSTEM + text(f"tail {number}", 50))
    house.cache.park_all()
    assert house.backend.used == house.cache.used == 0
    for number in range(3):
        assert house.ask(SYSTEM + text(f"tail {number}", 50) + [1]) == 250


def test_a_state_that_is_not_taken_back_is_computed_again() -> None:
    house = House()
    house.ask(SYSTEM)
    house.cache.park_all()
    house.backend.takes_back = False
    assert house.ask([*SYSTEM, 1]) == 0
    assert house.backend.used == 201


def test_an_indivisible_state_is_kept_where_prompts_part() -> None:
    house = House(divisible=False)
    assert house.ask([*SYSTEM, 1, 2, 3]) == 0
    assert house.ask([*SYSTEM, 4, 5, 6]) == 0
    assert house.ask([*SYSTEM, 7, 8, 9]) == 200
    assert house.ask([*SYSTEM, 7, 8, 9, 10]) == 203
    house.cache.park_all()
    assert house.ask([*SYSTEM, 1, 1, 1]) == 200


@hypothesis_settings(max_examples=400, deadline=None)
@given(st.data(), st.booleans())
def test_whatever_is_asked_the_cells_are_right(data: st.DataObject, divisible: bool) -> None:  # noqa: FBT001
    """Random prompts of few tokens join, grow, end and are given up; the context checks every move."""
    house = House(divisible=divisible, slots=3, idle_sequences=2, kv_tokens=160, idle_steps=3, parked_bytes=3000)
    running: list[Cached] = []
    for _ in range(data.draw(st.integers(1, 25))):
        action = data.draw(st.sampled_from(["ask", "grow", "end", "drop"]))
        if action == "ask" and len(running) < 3:
            base = data.draw(st.sampled_from([SYSTEM[:20], SYSTEM[:30], text("other", 20), []]))
            prompt = base + data.draw(st.lists(st.integers(0, 1), min_size=1, max_size=10))
            cached, known = house.begin(prompt)
            assert known < len(prompt)
            running.append(cached)
        elif running:
            cached = running[data.draw(st.integers(0, len(running) - 1))]
            if action == "grow" and len(cached.tokens) < 50:
                house.add(cached, [data.draw(st.integers(0, 1))])
            elif action in ("end", "drop"):
                running.remove(cached)
                house.cache.release(cached, keep=action == "end")
        for cached in running:
            assert house.backend.tokens(cached.seq) == cached.tokens
        house.check()
    for cached in running:
        house.cache.release(cached, keep=True)
    house.cache.park_all()
    assert house.cache.used == house.backend.used == 0


def test_the_shelf_keeps_to_its_size_and_drops_what_is_contained() -> None:
    shelf = ImageShelf(1000)
    image = Image((1, 2, 3), 0, memoryview(bytes(400)))
    assert shelf.put(image)
    assert shelf.put(replace(image, tokens=(1, 2, 3, 4)))
    assert shelf.size == 432
    assert shelf.put(replace(image, tokens=(9, 9)))
    assert shelf.put(replace(image, tokens=(8, 8)))
    assert shelf.best([1, 2, 3, 4], 4) == (None, 0)
    assert not shelf.put(Image((5,), 0, memoryview(bytes(2000))))
    assert shelf.size <= 1000
