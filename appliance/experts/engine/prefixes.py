"""Which slot serves a prompt, and whose KV cells it starts with.

The scheduler knows only `claim`, `release`, `evict`, `used` and `free_slots`; a prefix tree can take this
module's place.
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


@dataclass(frozen=True, slots=True)
class Claim:
    """A slot for a prompt."""

    slot: Slot
    donor: Slot
    """Whose cells to start with; may be the slot itself."""
    shared: int
    """How many: at least the prompt's last token is left to compute, for its logits."""


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

    def claim(self, prompt: list[int]) -> Claim:
        """Take an idle slot for a prompt; there must be one.

        It is the slot that shares most of the prompt, if it is idle and would lose no more than half of what
        it holds. Else that slot, which may be busy, lends its cells to an empty slot or the least recently
        used one.
        """
        best = max(self._all, key=lambda slot: common_prefix(slot.tokens, prompt))
        shared = min(common_prefix(best.tokens, prompt), len(prompt) - 1)
        if best in self._idle and shared and 2 * shared >= len(best.tokens):
            slot = best
        else:
            slot = min(self._idle, key=lambda idle: (bool(idle.tokens), idle is best, idle.idle_since))
        self._idle.remove(slot)
        return Claim(slot, best, shared)

    def release(self, slot: Slot) -> None:
        """Give a slot back; its cells stay until they are needed."""
        self._clock += 1
        slot.idle_since = self._clock
        self._idle.append(slot)

    def evict(self) -> Slot | None:
        """Return the least recently used idle slot that holds cells; the caller removes them."""
        return min((slot for slot in self._idle if slot.tokens), key=lambda slot: slot.idle_since, default=None)
