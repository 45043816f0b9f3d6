"""What tells one model file from another, quickly."""

import hashlib
from pathlib import Path

SAMPLE_BYTES = 1 << 20
MIDDLE_SAMPLES = 16
MIDDLE_BYTES = 1 << 16


def fingerprint(path: Path) -> str:
    """Return 32 hexadecimal digits that name a model file's contents, for the keys of caches.

    SHA-256 over the size, the first and the last megabyte and 16 samples of 64 KiB in between: 3 MB are read
    of a file of any size. The first megabyte holds a GGUF's metadata, so that a changed template or a
    fine-tuned copy differs. A file that somebody changed between the samples on purpose goes unnoticed; `rouse`
    never takes this for a check of a download. Of a model in several files, it is the first one's.

    Raises:
        OSError: the file can't be read.
    """
    size = path.stat().st_size
    digest = hashlib.sha256(f"{size}\n".encode())
    with path.open("rb") as file:
        digest.update(file.read(SAMPLE_BYTES))
        for sample in range(1, MIDDLE_SAMPLES + 1):
            file.seek(size * sample // (MIDDLE_SAMPLES + 1))
            digest.update(file.read(MIDDLE_BYTES))
        file.seek(max(size - SAMPLE_BYTES, 0))
        digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()[:32]
