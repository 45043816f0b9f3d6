"""The models folder: what is in it, one writer at a time, room on its disk."""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from appliance.models.catalogue import Catalogue
from appliance.models.errors import BusyError, RefusedError, SpaceError, UnknownModelError
from appliance.models.part import SUFFIX, remove_part
from appliance.models.record import Record, read_records, write_records

_LOCK = ".rouse-models.lock"
RESERVE_BYTES = 64 << 20
"""What a download leaves free, so that logs and settings can still be written."""

type FreeSpace = Callable[[Path], int]


def free_space(folder: Path) -> int:
    """Return the bytes that this user may still write, as statvfs(3) says."""
    return shutil.disk_usage(folder).free


@dataclass(frozen=True, slots=True)
class Present:
    """A model file of the folder."""

    path: Path
    size: int
    record: Record | None


class ModelFolder:
    """The folder that `paths.models` names."""

    def __init__(self, path: Path, *, free: FreeSpace = free_space) -> None:
        """Take the folder, which need not exist, and how to find the room on its disk."""
        self.path = path
        self._free = free

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Be the only one who changes the folder; it is made if need be.

        Raises:
            BusyError: another command is at it.
            RefusedError: the folder can't be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        except OSError as error:
            raise RefusedError(f"{self.path}: can't be written: {error.strerror}") from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BusyError(
                    f"{self.path}: another `rouse model` command is changing this folder; wait for it"
                ) from None
            yield
        finally:
            os.close(descriptor)

    def present(self) -> dict[str, Present]:
        """Return the model files by name. Raises CatalogueError."""
        records = read_records(self.path)
        paths = sorted(self.path.glob("*.gguf")) if self.path.is_dir() else []
        return {
            path.name: Present(path, path.stat().st_size, records.get(path.name)) for path in paths if path.is_file()
        }

    def parts(self) -> dict[str, int]:
        """Return the sizes of incomplete downloads by the name that they are for."""
        paths = sorted(self.path.glob(f"*{SUFFIX}")) if self.path.is_dir() else []
        return {path.name.removesuffix(SUFFIX): path.stat().st_size for path in paths}

    def part_path(self, name: str) -> Path:
        """Return where an incomplete file is kept."""
        return self.path / (name + SUFFIX)

    def need_room(self, size: int) -> None:
        """Raise SpaceError when the disk has no room for so many more bytes."""
        free = self._free(self.path)
        if free < size + RESERVE_BYTES:
            raise SpaceError(
                f"{self.path}: {size / 1e6:.0f} MB are needed and {max(free - RESERVE_BYTES, 0) / 1e6:.0f} MB are free "
                f"({RESERVE_BYTES >> 20} MiB are left for the system); make room or set paths.models"
            )

    def note(self, name: str, record: Record) -> None:
        """Record a file; needs the lock."""
        write_records(self.path, {**read_records(self.path), name: record})

    def names(self, wanted: str, catalogue: Catalogue) -> tuple[str, ...]:
        """Return the files that an id or a file name stands for, whether complete, begun or only recorded.

        Raises:
            UnknownModelError: nothing of it is here.
        """
        records = read_records(self.path)
        here = self.present().keys() | self.parts().keys() | records.keys()
        of_model = {file.name for model in catalogue.models if model.id == wanted for file in model.files}
        of_record = {name for name, record in records.items() if record.model == wanted}
        found = sorted(here & (of_model | of_record | {wanted}))
        if not found:
            raise UnknownModelError(f"{wanted}: not in {self.path}; `rouse model list` shows what is")
        return tuple(found)

    def remove(self, name: str) -> None:
        """Remove a file, what was begun of it, and its record; needs the lock."""
        (self.path / name).unlink(missing_ok=True)
        remove_part(self.part_path(name))
        records = read_records(self.path)
        if records.pop(name, None) is not None:
            write_records(self.path, records)
