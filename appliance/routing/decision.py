"""What a router says of a request: which experts are likely to answer it well, and why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A router's choice for one text."""

    experts: tuple[str, ...]
    """Names, the one to ask first in front; an expert that is not named has no rank."""
    router: str
    """Which router decided: `rules`, or the name and version of a trained one."""
    reason: str
    """One sentence for people."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """By expert: the quality that is expected of its answer, 0 to 1, less what its cost is worth."""


class Router(Protocol):
    """Chooses experts by a request's text; takes a few milliseconds and never raises."""

    def choose(self, text: str, experts: Sequence[str]) -> Decision:
        """Rank the experts that could answer, given by name, for the user's latest words."""
