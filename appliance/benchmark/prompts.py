"""Prompts of about so many tokens, each unlike any other, so that no cache of prefixes helps."""

import itertools
import random
from collections.abc import Iterator

WORDS = (
    "time", "year", "people", "way", "day", "man", "thing", "woman", "life", "child", "world", "school", "state",
    "family", "student", "group", "country", "problem", "hand", "part", "place", "case", "week", "company", "system",
    "program", "question", "work", "government", "number", "night", "point", "home", "water", "room", "mother", "area",
    "money", "story", "fact", "month", "lot", "right", "study", "book", "eye", "job", "word", "business", "issue",
)  # fmt: skip
"""Frequent English nouns: a token each in most vocabularies."""
ASK = "Tell me a very long story in great detail about these words:"
ASK_TOKENS = 16
"""Of `ASK`, the number before it and what stands between them, roughly."""


def prompts(tokens: int, *, seed: int) -> Iterator[str]:
    """Yield prompts without end, the same for the same seed.

    Args:
        tokens: length of each, roughly, without what the chat template adds; the report says what the server counted.
        seed: another one gives other prompts.
    """
    chance = random.Random(seed)  # noqa: S311  # these are no secrets
    for number in itertools.count():
        start = f"{chance.randrange(10**6)} {number}. {ASK} "
        yield start + " ".join(chance.choice(WORDS) for _ in range(max(1, tokens - ASK_TOKENS)))
