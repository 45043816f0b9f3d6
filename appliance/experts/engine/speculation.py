"""Drafts from what was said already: answers often repeat parts of their prompt.

(Prompt lookup decoding: Saxena, 2023, github.com/apoorvumang/prompt-lookup-decoding. The model itself checks
each draft, so that an answer is the same with and without.)
"""

from collections.abc import Sequence

LENGTHS = (3, 2)
"""Tokens that must be the same before a guess, longer ones first."""

SMOOTHING = 0.15
"""Weight of the newest token in the moving average of guesses that came true."""


class PromptLookup:
    """Finds where the last tokens stood before, and guesses that what followed them follows again."""

    def __init__(self, prompt: Sequence[int]) -> None:
        self._tokens: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}
        """Where a few tokens that stand in a row were followed by something the last time."""
        self.chance = 0.0
        """How likely a guess is to come true. It is learnt from every token for which there was a guess, also when
        nothing was drafted, so that trying costs nothing."""
        for token in prompt:
            self._append(token)

    def add(self, token: int) -> None:
        """Take the next token of the answer."""
        if guess := self.guess(1):
            self.chance += SMOOTHING * ((guess[0] == token) - self.chance)
        self._append(token)

    def guess(self, most: int) -> list[int]:
        """Return what may come next, at most so many tokens."""
        for length in LENGTHS:
            start = self._after.get(tuple(self._tokens[-length:]))
            if start is not None:
                return self._tokens[start : start + max(most, 0)]
        return []

    def _append(self, token: int) -> None:
        end = len(self._tokens)
        for length in LENGTHS:
            if end >= length:
                self._after[tuple(self._tokens[end - length : end])] = end
        self._tokens.append(token)
