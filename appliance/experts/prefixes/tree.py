"""A radix tree over token sequences.

A node stands for the tokens on the way from the root to it. The KV cells of that way are alive as long as a
sequence sits at the node or below it. (RadixAttention: Zheng et al., SGLang, 2023, arXiv:2312.07104.)
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Self


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


@dataclass(slots=True, eq=False)
class Cached:
    """A llama.cpp sequence and the tokens whose KV cells it holds."""

    seq: int
    node: "Node"
    """Deepest node all of whose tokens are the sequence's; what comes after them is its own alone."""
    tokens: list[int] = field(default_factory=list)
    busy: bool = True
    """Whether a request uses it; otherwise all of its tokens are the node's."""
    restored: bool = False
    """Whether part of it came back from memory: it was used before."""
    checkpoint: int = 0
    """Number of tokens at which its state should be kept, because prompts part there; 0 for nowhere."""

    @property
    def own(self) -> int:
        """Number of tokens that are not in the tree."""
        return len(self.tokens) - self.node.end


@dataclass(slots=True, eq=False)
class Node:
    """An edge and what hangs below it."""

    tokens: list[int]
    parent: Self | None
    end: int
    """Number of tokens from the root to the end of this edge."""
    children: dict[int, Self] = field(default_factory=dict)
    """By their first token."""
    cached: list[Cached] = field(default_factory=list)
    """Sequences that end here."""
    hits: int = 0
    """Prompts that started with these tokens, after the first."""
    used: int = 0
    """Logical time of the last use."""
    passed: int = 0
    """Number of the step up to which a request used it."""

    def holder(self) -> Cached:
        """Return a sequence that holds this node's cells, one that ends here if there is."""
        node = self
        while not node.cached:
            node = next(iter(node.children.values()))
        return min(node.cached, key=lambda cached: cached.busy)

    def below(self) -> "Iterator[Cached]":
        """Yield the sequences that hold this node's cells: those that end here or below."""
        stack = [self]
        while stack:
            node = stack.pop()
            stack += node.children.values()
            yield from node.cached

    def path(self) -> list[int]:
        """Return the tokens from the root to here."""
        parts = [node.tokens for node in self.upwards()]
        return [token for part in reversed(parts) for token in part]

    def upwards(self) -> "Iterator[Node]":
        """Yield this node and its ancestors, without the root."""
        node: Node | None = self
        while node is not None and node.parent is not None:
            yield node
            node = node.parent


class PrefixTree:
    """The tree; it knows nothing of llama.cpp."""

    def __init__(self) -> None:
        self.root = Node([], None, 0)
        self.size = 0
        """Tokens of all edges, which is the number of KV cells that they need."""

    def match(self, tokens: Sequence[int]) -> int:
        """Return how many leading tokens are in the tree."""
        return self._walk(self.root, tokens)[1]

    def find(self, tokens: Sequence[int], *, below: Node | None = None) -> Node:
        """Return the node that ends where the longest match ends, made by a split if need be.

        `below` starts there, and `tokens` are then those that follow it.
        """
        node, matched = self._walk(below or self.root, tokens)
        start = (below or self.root).end
        return node if node.end == start + matched else self._split(node, start + matched)

    def extend(self, node: Node, tokens: list[int]) -> Node:
        """Add a child for tokens of which not even the first is there."""
        if tokens[0] in node.children:
            raise AssertionError("The tree has these tokens already.")
        child = node.children[tokens[0]] = Node(tokens, node, node.end + len(tokens), used=node.used)
        self.size += len(tokens)
        return child

    def prune(self, node: Node) -> Node:
        """Remove the node, and its ancestors, that hold nothing any more; return the first that stays."""
        while node.parent is not None and not node.children and not node.cached:
            del node.parent.children[node.tokens[0]]
            self.size -= len(node.tokens)
            node = node.parent
        return node

    def leaves(self) -> Iterator[Node]:
        """Yield the nodes without children."""
        stack = list(self.root.children.values())
        while stack:
            node = stack.pop()
            if node.children:
                stack += node.children.values()
            else:
                yield node

    def _walk(self, node: Node, tokens: Sequence[int]) -> tuple[Node, int]:
        matched = 0
        while matched < len(tokens) and (child := node.children.get(tokens[matched])) is not None:
            shared = common_prefix(child.tokens, tokens[matched : matched + len(child.tokens)])
            matched += shared
            node = child
            if shared < len(child.tokens):
                break
        return node, matched

    def _split(self, node: Node, end: int) -> Node:
        parent = node.parent
        if parent is None:
            raise AssertionError("The root has no tokens to split.")
        kept = end - parent.end
        upper = Node(node.tokens[:kept], parent, end, hits=node.hits, used=node.used, passed=node.passed)
        upper.children[node.tokens[kept]] = node
        parent.children[node.tokens[0]] = upper
        node.tokens, node.parent = node.tokens[kept:], upper
        return upper
