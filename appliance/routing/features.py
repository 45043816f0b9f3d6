"""Texts as vectors of hashed n-grams: a fraction of a millisecond, no model, any language.

The hashing trick with signs: Weinberger et al., "Feature hashing for large scale multitask learning", 2009,
https://arxiv.org/abs/0902.2206. All n-grams of a text are hashed at once by numpy.
"""

import itertools
import re
import unicodedata
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from appliance.routing.domains import PATTERNS_SUM, signs, strongest

type Vector = NDArray[np.float32]
"""One dimension."""
type Matrix = NDArray[np.float32]
"""Two dimensions, a text per row."""

REVISION = 1
"""Raised whenever the same text gets another vector: a router that was trained before is then refused."""
ORDERS = (2, 3, 4, 5)
WORD_WEIGHT = 2.0
SIGN_WEIGHT = 30.0
"""Of the signs of a domain, which are few beside hundreds of n-grams."""

_BASE = 0x01000193
_DIGIT = re.compile(r"\d")
_WORD = re.compile(r"\w+|[^\w\s]")
_SPACE = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class NgramFeaturiser:
    """Hashes n-grams of characters, words, pairs of words and the signs of a domain into `2 ** bits` numbers.

    Together they have the length 1. Every digit counts as 0, so that one sum looks like another. Of a text longer
    than `longest` characters the beginning and the end are read, where requests stand; so the time has a bound.
    """

    bits: int = 12
    longest: int = 480

    @property
    def size(self) -> int:
        """Numbers per text."""
        return 1 << self.bits

    @property
    def identity(self) -> dict[str, Any]:
        """What must be the same in training and at work."""
        return {
            "kind": "ngrams",
            "revision": REVISION,
            "signs": PATTERNS_SUM,
            "bits": self.bits,
            "longest": self.longest,
        }

    def __call__(self, text: str) -> Vector:
        """Return the vector of a text; it is all zeros for one without a visible character."""
        plain = _DIGIT.sub("0", self._plain(text))
        words = _WORD.findall(plain)
        if not words:
            return np.zeros(self.size, np.float32)
        grams = _character_grams(f" {plain} ")
        tokens, seen = _word_grams(words), _signs(text)
        hashes = np.concatenate([*grams, tokens, seen])
        plain_count = len(hashes) - len(tokens) - len(seen)
        weights = np.repeat(
            np.array([1.0, WORD_WEIGHT, SIGN_WEIGHT], np.float32), [plain_count, len(tokens), len(seen)]
        )
        hashes = _mixed(hashes)
        signs = np.where(hashes & 1, np.float32(1), np.float32(-1))
        counts = np.bincount(hashes >> np.uint32(32 - self.bits), weights * signs, minlength=self.size)
        damped = np.sign(counts) * np.log1p(np.abs(counts))
        length = float(np.linalg.norm(damped))
        return np.asarray(damped / (length or 1.0), np.float32)

    def matrix(self, texts: list[str]) -> Matrix:
        """Return the vectors of several texts, one per row."""
        return np.stack([self(text) for text in texts]) if texts else np.zeros((0, self.size), np.float32)

    def _plain(self, text: str) -> str:
        if len(text) > self.longest:
            half = self.longest // 2
            text = f"{text[:half]} {text[-half:]}"
        return _SPACE.sub(" ", unicodedata.normalize("NFKC", text)[: 2 * self.longest].casefold()).strip()


def _character_grams(text: str) -> list[NDArray[np.uint32]]:
    """Return the hashes of all n-grams: h(n) = h(n - 1) · base + character, modulo 2³²."""
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    found = []
    hashes = points
    for order in range(2, max(ORDERS) + 1):
        if len(points) < order:
            break
        hashes = hashes[:-1] * np.uint32(_BASE) + points[order - 1 :]
        if order in ORDERS:
            found.append(hashes + np.uint32(order))
    return found


def _word_grams(words: list[str]) -> NDArray[np.uint32]:
    texts = [*words, *(f"{one} {other}" for one, other in itertools.pairwise(words))]
    return np.array([crc32(text.encode("utf-8", "surrogatepass")) for text in texts], np.uint32)


def _signs(text: str) -> NDArray[np.uint32]:
    """Return the hashes of the domain by rule and of the signs that speak for each."""
    found = signs(text)
    names = [f"\0{strongest(found).domain}"]
    names += [f"\0{domain}\0{name}" for domain, shown in found.items() for _, name in shown]
    return np.array([crc32(name.encode()) for name in names], np.uint32)


def _mixed(hashes: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Spread the bits (the finaliser of MurmurHash3, public domain)."""
    hashes = hashes ^ (hashes >> np.uint32(16))
    hashes = hashes * np.uint32(0x85EBCA6B)
    hashes = hashes ^ (hashes >> np.uint32(13))
    hashes = hashes * np.uint32(0xC2B2AE35)
    return hashes ^ (hashes >> np.uint32(16))
