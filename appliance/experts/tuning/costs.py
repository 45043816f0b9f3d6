"""What a step costs, by what is in it."""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

GAP_RATIO = 2.0
"""A step with a chunk of prefill costs at most this many times the step without: tokens then come at gaps of
twice the usual length at worst, and noise has room up to three."""

Milliseconds = Annotated[float, Field(gt=0, le=3_600_000, allow_inf_nan=False)]
Tokens = Annotated[int, Field(ge=1, le=1 << 20)]


class Cost(BaseModel):
    """A measured step."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tokens: Tokens
    milliseconds: Milliseconds


class CostModel(BaseModel):
    """Milliseconds of a step on this machine, with little in the KV cache; long contexts cost more.

    Between measured sizes it is linear, beyond the largest one it goes on with the last slope.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    decode: tuple[Cost, ...] = Field(min_length=1)
    """Steps in which so many sequences get one token each."""
    prefill: tuple[Cost, ...] = Field(min_length=1)
    """Steps with so many tokens of one prompt."""

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        for costs in (self.decode, self.prefill):
            if any(one.tokens >= next_one.tokens for one, next_one in pairwise(costs)):
                raise ValueError("sizes must increase")
        if self.decode[0].tokens != 1:
            raise ValueError("the step of one token is missing")
        return self

    def decode_ms(self, sequences: int) -> float:
        """Return the milliseconds of a step that gives so many sequences a token each."""
        return _at(self.decode, sequences)

    @property
    def prefill_ms_per_token(self) -> float:
        """Milliseconds of a prompt's token in the largest measured step."""
        return self.prefill[-1].milliseconds / self.prefill[-1].tokens

    def step_ms(self, sequences: int, prefill: int) -> float:
        """Return the milliseconds of a step with tokens for so many sequences and so many of a prompt.

        The prompt's share is what so many tokens add to a step that has `sequences` tokens already.
        """
        if not prefill:
            return self.decode_ms(max(sequences, 1))
        curve = (self.decode[0], *(cost for cost in self.prefill if cost.tokens > 1))
        if not sequences:
            return _at(curve, prefill)
        added = _at(curve, sequences + prefill) - _at(curve, sequences)
        return self.decode_ms(sequences) + max(added, 0.0)

    def prefill_chunk(self, sequences: int, *, limit: int, ratio: float = GAP_RATIO) -> int:
        """Return how many prompt tokens may join a step of so many running sequences, 1 to `limit`.

        The most for which the step costs at most `ratio` times what it costs without them. With nothing
        running it is `limit`.
        """
        if not sequences:
            return limit
        allowed = ratio * self.decode_ms(sequences)
        return max(
            1, bisect_left(range(1, limit + 1), True, key=lambda chunk: self.step_ms(sequences, chunk) > allowed)
        )


def _at(costs: Sequence[Cost], tokens: int) -> float:
    if len(costs) == 1:
        return costs[0].milliseconds * tokens / costs[0].tokens
    index = min(max(bisect_left([cost.tokens for cost in costs], tokens), 1), len(costs) - 1)
    before, after = costs[index - 1], costs[index]
    slope = (after.milliseconds - before.milliseconds) / (after.tokens - before.tokens)
    return max(before.milliseconds + slope * (tokens - before.tokens), 0.001)
