"""Which endpoint has read the beginning of a prompt before.

A prompt's bytes are cut into blocks, and each block's hash holds that of the block before, so that one look-up
says that all before it is the same as well. vLLM names the blocks of its KV cache in this way ("Automatic Prefix
Caching", https://docs.vllm.ai/en/latest/design/prefix_caching.html), and its router the chunks of a prompt's text
(production-stack, "Prefix Aware Routing"). Python's own keyed hash (SipHash, PEP 456) is used: nobody outside of
the process can make two prompts collide.
"""

from collections import OrderedDict
from collections.abc import Sequence

BLOCK_BYTES = 256
"""Some sixty tokens: less than any system prompt, and a hundred look-ups for a long one."""
MAX_BLOCKS = 512
"""Blocks of one prompt that are looked at; what begins with 128 kB of the same text is the same to us."""
BYTES_PER_TOKEN = 4
"""Usual for English text; it only bounds what an endpoint is believed to remember."""
FEWEST_REMEMBERED, MOST_REMEMBERED = 64, 8192

type Blocks = Sequence[int]


def blocks_of(prompt: bytes) -> Blocks:
    """Return the chained hashes of a prompt's whole blocks; a prompt shorter than one has none."""
    chain = 0
    hashes = []
    for start in range(0, min(len(prompt), MAX_BLOCKS * BLOCK_BYTES) - BLOCK_BYTES + 1, BLOCK_BYTES):
        chain = hash((chain, prompt[start : start + BLOCK_BYTES]))
        hashes.append(chain)
    return hashes


class PrefixMemory:
    """The blocks that one endpoint read last, as many as its KV cache may hold."""

    def __init__(self, cache_tokens: int | None) -> None:
        """Take the size of the endpoint's KV cache, or None if it is not known."""
        blocks = MOST_REMEMBERED if cache_tokens is None else cache_tokens * BYTES_PER_TOKEN // BLOCK_BYTES
        self._capacity = max(FEWEST_REMEMBERED, min(blocks, MOST_REMEMBERED))
        self._blocks: OrderedDict[int, None] = OrderedDict()

    def matched(self, blocks: Blocks) -> int:
        """Return how many of a prompt's first blocks are remembered."""
        known = self._blocks
        for number, block in enumerate(blocks):
            if block not in known:
                return number
        return len(blocks)

    def remember(self, blocks: Blocks) -> None:
        """Add a prompt. Its beginning counts as the newest: without it the rest is never found."""
        for block in reversed(blocks[: self._capacity]):
            self._blocks[block] = None
            self._blocks.move_to_end(block)
        while len(self._blocks) > self._capacity:
            self._blocks.popitem(last=False)
