"""Which sequence serves a prompt, and where the cells come from that it starts with.

Cells that are in the context are shared by sequence copy. What no request uses is soon moved to memory, because
attention passes over every occupied cell, also over those of other sequences: a thousand idle cells slow a step of
SmolLM2-135M by 12 %, while to move 1,500 there and back takes about as long as two steps. What is used often is
kept on disk too.
"""

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from appliance.experts.backend import Backend
from appliance.experts.errors import StepError
from appliance.experts.prefixes.images import Image, ImageShelf
from appliance.experts.prefixes.store import PrefixStore
from appliance.experts.prefixes.tree import Cached, Node, PrefixTree, common_prefix
from appliance.experts.settings import EngineSettings

_log = logging.getLogger(__name__)

RESTORED_PER_COMPUTED = 64
"""Tokens that come back from memory in the time that one is computed, at least: some 1,000 on the processors, fewer on
the GPUs, that are known."""

FREQUENT = 64
"""Shortest prefix that is kept on disk, in tokens."""


@dataclass(frozen=True, slots=True)
class Use:
    """Where the beginning of a prompt was found."""

    cells: int = 0
    """Tokens whose KV cells were there."""
    memory: int = 0
    """Tokens that came back from memory."""


class PrefixCache:
    """Sequences and cells of one context; used by the engine thread alone."""

    def __init__(self, backend: Backend, settings: EngineSettings, store: PrefixStore | None = None) -> None:
        self._backend = backend
        self._cells = settings.kv_cells
        self._idle_steps = settings.idle_steps
        self._tree = PrefixTree()
        self._free = list(range(settings.sequences))
        self._scratch = settings.sequences
        self._busy: list[Cached] = []
        self._clock = 0
        self._steps = 0
        self._due: float = 0
        self._scattered = False
        self._to_save: dict[Node, str] = {}
        self.shelf = ImageShelf(settings.parked_bytes)
        self._store = store

    @property
    def used(self) -> int:
        """Cells in use, in tokens; of indivisible states, the most that may be in use."""
        if not self._backend.divisible:
            return sum(len(cached.tokens) for cached in self._tree.root.below())
        return self._tree.size + sum(cached.own for cached in self._busy)

    @property
    def idle(self) -> int:
        """Cells that no request uses, in tokens."""
        return self._tree.size - sum(len(node.tokens) for node in self._locked())

    def committed(self) -> int:
        """Return the cells in the tree that running requests use, in tokens: they can't be freed."""
        if not self._backend.divisible:
            return sum(cached.node.end for cached in self._busy)
        return sum(len(node.tokens) for node in self._locked())

    def match(self, prompt: list[int]) -> int:
        """Return how many leading tokens of a prompt are in cells."""
        most = self._tree.match(prompt)
        for cached in self._busy:
            if len(cached.tokens) > most:
                most = max(most, common_prefix(cached.tokens, prompt))
        return min(most, len(prompt) - 1)

    def claim(self, prompt: list[int], name: str = "") -> tuple[Cached, Use]:
        """Return a sequence that holds as much of a prompt's beginning as is known.

        At least the last token is left to compute, for its logits. What prompts of one name have in common is kept
        on disk from its second use on, what others have in common from its third.
        """
        self._clock += 1
        self._scattered = self._scattered or bool(self._busy)
        limit = len(prompt) - 1
        self._share_running(prompt, limit)
        node = self._reusable(prompt, limit)
        image, most = self.shelf.best(prompt, limit, divisible=self._backend.divisible)
        cached = self._start(node, prompt)
        for step in node.upwards():
            step.hits += 1
            step.used = self._clock
        if image is not None and (most - node.end) * RESTORED_PER_COMPUTED > len(image.tokens) - image.start:
            self._restore(cached, image, most)
        if self._store is not None and node.end >= FREQUENT and (node.hits > 1 or (name and node.children)):
            self._to_save.setdefault(node, name)
        if not self._backend.divisible and (branch := min(self._tree.match(prompt), limit)) >= node.end + FREQUENT:
            cached.checkpoint = branch
        return cached, Use(node.end, len(cached.tokens) - node.end)

    def checkpoint(self, cached: Cached) -> None:
        """Keep the state that a sequence is in, for models of which no part of a state can be taken."""
        cached.checkpoint = 0
        try:
            seq = self._take(keep=cached.node)
        except StepError:
            return
        if not self._backend.copy(cached.seq, seq, 0, len(cached.tokens)):
            self._free.append(seq)
            return
        node = self._tree.find(cached.tokens)
        if node.end < len(cached.tokens):
            node = self._tree.extend(node, cached.tokens[node.end :])
        node.hits, node.used, node.passed = 1, self._clock, self._steps
        node.cached.append(Cached(seq, node, list(cached.tokens), busy=False))

    def release(self, cached: Cached, *, keep: bool) -> None:
        """Take a sequence back; what it holds stays in the tree, or goes if it is of no use."""
        self._clock += 1
        if keep:
            self._promote(cached, len(cached.tokens))
        self._busy.remove(cached)
        cached.busy = False
        node = cached.node
        for above in node.upwards():
            above.passed = self._steps
        self._due = min(self._due, self._steps + self._idle_steps)
        if not keep or node.parent is None or node.children or len(node.cached) > 1:
            self._forget(cached)
            return
        node.used = self._clock

    def make_room(self, tokens: int) -> None:
        """Free idle cells until so many more have a place. Raises StepError if they have not."""
        while self.used + tokens > self._cells:
            leaf = self._least_recent()
            if leaf is None:
                raise StepError("The KV cache is full.")
            self._evict(leaf)

    @property
    def wants_saving(self) -> bool:
        """Whether a prefix waits to be written to disk."""
        return bool(self._to_save)

    def save_next(self) -> None:
        """Hand a frequent prefix to the store; takes as long as copying its cells."""
        node, name = self._to_save.popitem()
        if self._store is None or (not node.children and not node.cached):
            return
        tokens = node.path()
        if self._store.holds(tokens):
            return
        if self._backend.copy(node.holder().seq, self._scratch, 0, node.end):
            data = self._backend.save(self._scratch)
            self._backend.keep(self._scratch, 0)
            self._store.put(Image(tuple(tokens), 0, data), name)

    def save_all(self) -> int:
        """Hand every frequent prefix to the store that is not there yet; return how many were waiting."""
        waiting = len(self._to_save)
        while self._to_save:
            self.save_next()
        return waiting

    def park_all(self) -> None:
        """Move all idle cells to memory: before a machine sleeps, or when the cells are needed."""
        while (leaf := self._least_recent()) is not None:
            self._evict(leaf)

    def tidy(self) -> None:
        """Move to memory what no request uses, so that the next one gets the first cells of the context.

        Attention passes over all cells up to the last that is occupied.
        """
        while leaf := next(self._parkable(), None):
            self._evict(leaf)

    @property
    def wants_tidying(self) -> bool:
        """Whether there is more in the cells than the last prompt, which the next one may well continue.

        Or whether this one may lie far behind the first cell, because others ran beside it.
        """
        idle = sum(1 for _ in islice(self._parkable(), 2))
        return idle > 1 or (idle == 1 and self._scattered)

    def tidy_next(self) -> None:
        """Move the prefix to memory that was used least recently, and the last one to the first cells.

        When there is nothing else to do.
        """
        idle = sorted(self._parkable(), key=lambda leaf: leaf.used)
        tokens = idle[0].path()
        self._evict(idle[0])
        if len(idle) == 1:
            self._scattered = False
            self._bring_back(tokens)

    def _bring_back(self, tokens: list[int]) -> None:
        image, most = self.shelf.best(tokens, len(tokens), divisible=self._backend.divisible)
        if image is not None:
            cached = self._start(self._tree.root, [])
            self._restore(cached, image, most)
            self.release(cached, keep=True)

    def pass_over(self) -> None:
        """Count a step, and move a prefix to memory that no request has used for `idle_steps` of them."""
        self._steps += 1
        if self._steps < self._due:
            return
        idle = sorted(self._parkable(), key=lambda leaf: leaf.passed)
        if idle and self._steps - idle[0].passed >= self._idle_steps:
            self._evict(idle.pop(0))
            self._due = self._steps + 1
        else:
            self._due = idle[0].passed + self._idle_steps if idle else math.inf

    def _parkable(self) -> Iterator[Node]:
        """Yield the leaves that can go and that the memory has room for."""
        for leaf in self._candidates():
            (cached,) = leaf.cached
            waits = any(node in self._to_save for node in leaf.upwards())
            if not waits and self._backend.state_bytes(cached.seq) < self.shelf.capacity:
                yield leaf

    def _reusable(self, prompt: list[int], limit: int) -> Node:
        """Return the node whose cells a prompt can start with."""
        if self._backend.divisible:
            return self._tree.find(prompt[:limit])
        node = self._tree.find(prompt[:limit])
        while node.parent is not None and not any(not cached.busy for cached in node.cached):
            node = node.parent
        return node

    def _share_running(self, prompt: list[int], limit: int) -> None:
        """Put into the tree what a running request has computed of this prompt."""
        if not self._backend.divisible:
            return
        best = max(self._busy, key=lambda cached: common_prefix(cached.tokens, prompt), default=None)
        if best is not None:
            shared = min(common_prefix(best.tokens, prompt), limit)
            if shared > best.node.end and shared > self._tree.match(prompt[:limit]):
                self._promote(best, shared)

    def _start(self, node: Node, prompt: list[int]) -> Cached:
        seq = self._take(keep=node)
        shared = node.end
        if shared:
            shared = self._backend.copy(node.holder().seq, seq, 0, shared)
            if not shared:
                node = self._tree.root
        cached = Cached(seq, node, prompt[:shared])
        node.cached.append(cached)
        self._busy.append(cached)
        return cached

    def _restore(self, cached: Cached, image: Image, most: int) -> None:
        """Add what an image knows to a sequence that was just started, up to `most` tokens."""
        if image.start > len(cached.tokens):
            base, known = self.shelf.best(list(image.tokens), image.start)
            if base is None or base.start > len(cached.tokens) or known < image.start:
                return
            self._restore(cached, base, known)
            if len(cached.tokens) < image.start:
                return
        try:
            self.make_room(len(image.tokens) - image.start)
        except StepError:
            return
        if not self._backend.restore(self._scratch, image.data):
            _log.warning("llama.cpp did not take back a prefix of %d tokens; it is computed again", most)
            self.shelf.take(image)
            return
        if not self._backend.divisible:
            self._backend.keep(cached.seq, 0)
            cached.tokens.clear()
        if self._backend.copy(self._scratch, cached.seq, len(cached.tokens), most):
            cached.tokens[:] = image.tokens[:most]
            cached.restored = True
        self._backend.keep(self._scratch, 0)

    def _promote(self, cached: Cached, end: int) -> None:
        """Move what a sequence has of its own into the tree, up to a number of tokens."""
        start = cached.node.end
        if end <= start:
            return
        tail = cached.tokens[start:end]
        node = self._tree.find(tail, below=cached.node)
        if node.end > start and self._backend.divisible:
            # Two requests computed the same: from now on they share the cells that came first.
            self._backend.cut(cached.seq, start, node.end)
            self._backend.copy(node.holder().seq, cached.seq, start, node.end)
        if node.end < end:
            node = self._tree.extend(node, tail[node.end - start :])
            node.hits = int(cached.restored)
        node.used = self._clock
        cached.node.cached.remove(cached)
        cached.node = node
        node.cached.append(cached)
        self._drop_redundant(node)

    def _drop_redundant(self, node: Node) -> None:
        """Free the idle sequences above a node that hold nothing that is not held below."""
        for above in list(node.upwards())[1:]:
            for other in [other for other in above.cached if not other.busy]:
                if self._backend.divisible:
                    self._forget(other)

    def _forget(self, cached: Cached) -> None:
        cached.node.cached.remove(cached)
        self._backend.keep(cached.seq, 0)
        self._free.append(cached.seq)
        self._tree.prune(cached.node)

    def _take(self, keep: Node) -> int:
        """Return a sequence that is free; the cells of `keep` stay."""
        while not self._free:
            leaf = self._least_recent(keep)
            if leaf is None:
                raise StepError("All sequences of the context are in use.")
            self._evict(leaf)
        return self._free.pop()

    def _locked(self) -> set[Node]:
        """Return the nodes whose cells running requests use."""
        return {node for cached in self._busy for node in cached.node.upwards()}

    def _candidates(self, keep: Node | None = None) -> Iterator[Node]:
        """Yield the leaves that can go; the cells of `keep` stay."""
        for leaf in self._tree.leaves():
            if any(cached.busy for cached in leaf.cached):
                continue
            if keep is None or keep not in leaf.upwards() or sum(1 for _ in keep.below()) > 1:
                yield leaf

    def _least_recent(self, keep: Node | None = None) -> Node | None:
        return min(self._candidates(keep), key=lambda leaf: (leaf.hits > 0, leaf.used), default=None)

    def _evict(self, leaf: Node) -> None:
        """Free an idle leaf's cells, after saving them to memory."""
        tokens = leaf.path()
        (cached,) = leaf.cached
        leaf.cached.clear()
        remaining = self._tree.prune(leaf)
        start = remaining.end if self._backend.divisible else 0
        if self.shelf.capacity:
            if start:
                self._backend.cut(cached.seq, 0, start)
            self.shelf.put(Image(tuple(tokens), start, self._backend.save(cached.seq)))
        self._backend.keep(cached.seq, 0)
        self._free.append(cached.seq)
