"""Which slot serves a prompt, and how much of its KV cache can stay.

The scheduler knows only `claim`, `grow`, `cut`, `release` and `evict`; a prefix tree that shares cells between
sequences can take this module's place.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class Slot:
    """One sequence of the context."""

    seq: int
    tokens: list[int] = field(default_factory=list)
    """Tokens whose KV is in the cache, by position."""
    idle_since: int = 0
    """Logical time of the release; the smallest is the least recently used."""


def common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    """Return the number of leading tokens that are equal (bisection on slices: comparisons stay in C)."""
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


class SlotPrefixes:
    """Idle slots keep their KV; a prompt goes to the one that shares most of it."""

    def __init__(self, slots: int) -> None:
        self._idle = [Slot(seq) for seq in range(slots)]
        self._all = tuple(self._idle)
        self._clock = 0

    @property
    def used(self) -> int:
        """Cells in use, in tokens."""
        return sum(len(slot.tokens) for slot in self._all)

    @property
    def free_slots(self) -> int:
        """Slots that can be claimed."""
        return len(self._idle)

    def claim(self, prompt: list[int]) -> tuple[Slot, int]:
        """Take the idle slot with the longest prefix in common, the least recently used among equals.

        Return it and the tokens that can stay: at least the prompt's last token is always computed, for its logits.
        There must be an idle slot.
        """
        slot = max(self._idle, key=lambda idle: (common_prefix(idle.tokens, prompt), -idle.idle_since))
        self._idle.remove(slot)
        return slot, min(common_prefix(slot.tokens, prompt), len(prompt) - 1)

    def release(self, slot: Slot) -> None:
        """Give a slot back; its cells stay until they are needed."""
        self._clock += 1
        slot.idle_since = self._clock
        self._idle.append(slot)

    def evict(self) -> Slot | None:
        """Return the least recently used idle slot that holds cells; the caller removes them."""
        return min(
            (slot for slot in self._idle if slot.tokens), key=lambda slot: slot.idle_since, default=None
        )

    def all(self) -> tuple[Slot, ...]:
        """Return every slot, idle or not."""
        return self._all
