"""How the next token is chosen, independent of who does it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

GREEDY_BELOW = 1e-3
"""Temperatures below this divide logits into infinities; they mean greedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Parameters of one request's sampler chain; the order of application is llama.cpp's usual one.

    logit bias, penalties, top-k, top-p, min-p, temperature, then a draw (or the best when greedy).
    """

    temperature: float = 0.8
    top_k: int = 40
    """0 or less: the whole vocabulary."""
    top_p: float = 0.95
    min_p: float = 0.05
    seed: int | None = None
    """None draws one."""
    repeat_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    penalty_last_n: int = 64
    """The penalties look at so many last tokens."""
    logit_bias: Mapping[int, float] = field(default_factory=dict)

    @property
    def greedy(self) -> bool:
        """Whether the most probable token is taken."""
        return self.temperature < GREEDY_BELOW

    @property
    def penalises(self) -> bool:
        """Whether any penalty is in force."""
        return (self.repeat_penalty, self.frequency_penalty, self.presence_penalty) != (1.0, 0.0, 0.0)
