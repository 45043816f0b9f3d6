"""How the C library takes memory from the system."""

import ctypes

M_MMAP_THRESHOLD = -3
"""From glibc's malloc.h; see mallopt(3)."""

LARGE = 4 << 20
"""Bytes. Saved prefixes of a small model take 2 to 40 MB."""


def map_large_blocks() -> None:
    """Have large blocks mapped one by one, so that the system has them back when they are freed.

    Left to itself, glibc learns to cut blocks of up to 32 MB from its heap. Saved prefixes of many sizes then leave
    holes: 256 MB of them took up to 335 MB, and take 245 this way. Another C library is left as it is.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE)
