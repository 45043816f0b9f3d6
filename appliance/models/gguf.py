"""What the first bytes of a GGUF file say (ggml's docs/gguf.md)."""

import struct
from pathlib import Path

from appliance.models.errors import IntegrityError

MAGIC = b"GGUF"
_HEADER = struct.Struct("<4sIQQ")
_VERSIONS = (2, 3)
_MAX_ENTRIES = 1 << 24


def check(path: Path) -> None:
    """Check that a file begins as a GGUF does: magic, version, plausible counts of tensors and metadata.

    Raises:
        IntegrityError: it does not.
    """
    with path.open("rb") as file:
        head = file.read(_HEADER.size)
    if len(head) < _HEADER.size or not head.startswith(MAGIC):
        raise IntegrityError("it is no GGUF file")
    _, version, tensors, metadata = _HEADER.unpack(head)
    if version not in _VERSIONS:
        raise IntegrityError(f"it is a GGUF file of version {version}; 2 and 3 can be loaded")
    if not 0 < tensors <= _MAX_ENTRIES or not 0 < metadata <= _MAX_ENTRIES:
        raise IntegrityError("its GGUF header is damaged")
