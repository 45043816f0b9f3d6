"""Saved KV cells of token sequences, in memory."""

from collections import OrderedDict
from dataclasses import dataclass

from appliance.experts.prefixes.tree import common_prefix


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """llama.cpp's state of a sequence: the cells of `tokens[start:]`."""

    tokens: tuple[int, ...]
    """From the first on, also those before `start`."""
    start: int
    data: memoryview

    @property
    def size(self) -> int:
        """Bytes, about."""
        return len(self.data) + 8 * len(self.tokens)


class ImageShelf:
    """Images in memory up to a number of bytes; the least recently used one goes first."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._images: OrderedDict[tuple[int, ...], Image] = OrderedDict()
        self.size = 0
        """Bytes that are held."""

    def put(self, image: Image) -> bool:
        """Keep an image; those that it contains are replaced. False if it is too large to be kept."""
        for held in list(self._images.values()):
            if held.start >= image.start and image.tokens[: len(held.tokens)] == held.tokens:
                self.take(held)
        if image.size > self.capacity:
            return False
        self._images[image.tokens] = image
        self.size += image.size
        while self.size > self.capacity:
            _, oldest = self._images.popitem(last=False)
            self.size -= oldest.size
        return True

    def take(self, image: Image) -> None:
        """Remove an image, if it is there."""
        if (held := self._images.pop(image.tokens, None)) is not None:
            self.size -= held.size

    def best(self, tokens: list[int], limit: int, *, divisible: bool = True) -> tuple[Image | None, int]:
        """Return the image that shares most leading tokens, and how many, of at most `limit`.

        An indivisible image counts only where the tokens start with all of its own.
        """
        found: Image | None = None
        most = 0
        for image in self._images.values():
            length = min(len(image.tokens), limit)
            if length <= most or (not divisible and length < len(image.tokens)):
                continue
            shared = common_prefix(image.tokens[:length], tuple(tokens[:length]))
            if shared > most and shared > image.start and (divisible or shared == len(image.tokens)):
                found, most = image, shared
        if found is not None:
            self._images.move_to_end(found.tokens)
        return found, most
