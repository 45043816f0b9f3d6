"""A file that is not complete yet: `NAME.part`, and beside it what it is a part of.

It stays in the models folder, on the same file system as the final name, so that the last step is one rename.
"""

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from appliance.models.errors import SpaceError

SUFFIX = ".part"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_BLOCK = 1 << 20
_STATE_LIMIT = 64 * 1024

type Count = Callable[[int], None]
"""Called with a number of bytes that were just dealt with."""


class PartState(BaseModel):
    """What a part is a part of; without it, or with another, the part is worthless."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    source: str
    etag: str | None = None
    """The strong entity tag that the bytes belong to (RFC 9110, 8.8.3)."""
    size: int | None = Field(default=None, ge=0)
    """Size of the whole, as the source says."""
    sha256: str | None = None
    """Checksum that the source announced."""
    revision: str | None = None


class PartFile:
    """An open part. Used by one process at a time, which the folder's lock sees to."""

    def __init__(self, path: Path, state: PartState) -> None:
        """Open the part at `path`, or begin it; what is there from another source is dropped."""
        self.path = path
        self._state_path = path.with_name(path.name + ".json")
        with _full_disk(path):
            self._file = path.open("ab", buffering=0)
        self.length = os.fstat(self._file.fileno()).st_size
        self.state = state
        found = _read_state(self._state_path) if self.length else None
        if found is not None and found.source == state.source:
            self.state = found
        else:
            self.restart(state)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def restart(self, state: PartState) -> None:
        """Drop all bytes and begin with a new state."""
        self._file.truncate(0)
        self.length = 0
        self.note(state)

    def note(self, state: PartState) -> None:
        """Keep a state for the next attempt."""
        self.state = state
        draft = self._state_path.with_name(self._state_path.name + ".new")
        with _full_disk(self.path):
            draft.write_text(state.model_dump_json(), encoding="utf-8")
            draft.replace(self._state_path)

    def append(self, data: bytes) -> None:
        """Write bytes at the end. Raises SpaceError when the disk is full; what fitted is kept."""
        view = memoryview(data)
        with _full_disk(self.path):
            while view:
                written = self._file.write(view) or 0
                self.length += written
                view = view[written:]

    def sha256(self, count: Count) -> str:
        """Return the checksum of what is on the disk."""
        return file_sha256(self.path, count)

    def discard(self) -> None:
        """Remove it."""
        remove_part(self.path)


def publish(path: Path, final: Path) -> None:
    """Give a complete part its final name, durably and in one step."""
    with _full_disk(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
            os.fchmod(descriptor, 0o644)
        finally:
            os.close(descriptor)
    path.replace(final)
    sync_folder(final.parent)
    remove_part(path)


def remove_part(path: Path) -> None:
    """Remove a part and what it is a part of."""
    path.unlink(missing_ok=True)
    path.with_name(path.name + ".json").unlink(missing_ok=True)


def file_sha256(path: Path, count: Count) -> str:
    """Return a file's checksum, reading it in blocks."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            count(len(block))
    return digest.hexdigest()


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable (fsync(2))."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _full_disk(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise SpaceError(
            f"{path.parent}: the disk is full; make room and run the same command again, it goes on where it stopped"
        ) from error


def _read_state(path: Path) -> PartState | None:
    try:
        with path.open("rb") as file:
            return PartState.model_validate_json(file.read(_STATE_LIMIT))
    except (OSError, ValidationError):
        return None
