"""Drafts from what was said already: answers often repeat parts of their prompt.

(Prompt lookup decoding: Saxena, 2023, github.com/apoorvumang/prompt-lookup-decoding. The model itself checks
each draft, so that an answer is the same with and without.)
"""

from collections.abc import Sequence

LENGTHS = (3, 2)
"""Tokens that must be the same before a guess, longer ones first."""

SMOOTHING = 0.1
"""Weight of the newest guess in the moving average of those that came true."""

FIRST_CHANCE = 0.7
"""What is believed of a guess before any was made."""

RECOVERY = 0.01
"""How much the belief grows with each token that came without a guess, so that guessing is tried again."""


class PromptLookup:
    """Finds where the last tokens stood before, and guesses that what followed them follows again."""

    def __init__(self, prompt: Sequence[int]) -> None:
        self._tokens: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}
        """Where a few tokens that stand in a row were followed by something the last time."""
        self.chance = FIRST_CHANCE
        """How likely a guessed token is to come true."""
        for token in prompt:
            self._append(token)

    def add(self, token: int) -> None:
        """Take the next token of the answer."""
        self._append(token)
        self.chance = min(self.chance + RECOVERY, FIRST_CHANCE) if self.chance < FIRST_CHANCE else self.chance

    def guess(self, most: int) -> list[int]:
        """Return what may come next, at most so many tokens."""
        for length in LENGTHS:
            start = self._after.get(tuple(self._tokens[-length:]))
            if start is not None:
                return self._tokens[start : start + max(most, 0)]
        return []

    def learn(self, drafted: int, accepted: int) -> None:
        """Take how many guessed tokens there were, and how many of them came true."""
        self.chance += SMOOTHING * (accepted / drafted - self.chance)

    def _append(self, token: int) -> None:
        end = len(self._tokens)
        for length in LENGTHS:
            if end >= length:
                self._after[tuple(self._tokens[end - length : end])] = end
        self._tokens.append(token)
