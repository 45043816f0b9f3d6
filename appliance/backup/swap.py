"""A restored state folder takes the place of the old one: at one moment, and never half, also when the power goes.

Everything happens in a folder beside the state folder, `<state>.restore`. Once its journal is written, the swap is
decided, and whoever comes next finishes what was begun; before that, what was begun is thrown away.
"""

import contextlib
import ctypes
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from appliance import durable_files
from appliance.backup.contents import OWN
from appliance.backup.errors import StateError

MARK = ".restored.json"
"""File of a state folder that says which restore made it."""
_EXCHANGE = 2
"""RENAME_EXCHANGE, see renameat2(2)."""
_HERE = -100
"""AT_FDCWD."""
_UNSUPPORTED = frozenset({errno.EINVAL, errno.ENOSYS, errno.EXDEV})


class Decided(BaseModel):
    """The journal, and the mark in the restored state."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Annotated[str, StringConstraints(pattern="^[0-9a-f]{32}$")]
    snapshot: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
    before: Annotated[str, StringConstraints(pattern=r"^[^/\x00]{1,255}$")]
    """Name of the folder that keeps what was there before."""


@dataclass(frozen=True, slots=True)
class Swap:
    """The folders of one swap."""

    state: Path
    models: Path

    @property
    def work(self) -> Path:
        """Where the restored files are made ready."""
        return self.state.with_name(f"{self.state.name}.restore")

    @property
    def new(self) -> Path:
        """What the backup holds: `state`, `config`, `include` and the manifest."""
        return self.work / "new"

    @property
    def old(self) -> Path:
        """What was there before."""
        return self.work / "old"

    @property
    def _journal(self) -> Path:
        return self.work / "journal.json"

    def begin(self) -> None:
        """Make an empty folder for the restored files. Raises StateError."""
        with _said(self.work):
            if self.work.exists():
                shutil.rmtree(self.work)
            self.work.mkdir(mode=0o700, parents=True)
            self.new.mkdir(mode=0o700)
            self.old.mkdir(mode=0o700)

    def abandon(self) -> None:
        """Throw away what was begun and not decided. Raises StateError."""
        with _said(self.work):
            if self.work.exists() and self.decided() is None:
                shutil.rmtree(self.work)

    def decide(self, snapshot: str, *, before: str) -> None:
        """Write the journal; from here on the swap is finished, by this process or the next. Raises StateError."""
        with _said(self.work):
            decided = Decided(id=secrets.token_hex(16), snapshot=snapshot, before=before)
            text = decided.model_dump_json().encode()
            durable_files.write(self.new / "state" / MARK, text, mode=0o600)
            _flush_all(self.new)
            durable_files.write(self._journal, text, mode=0o600)

    def decided(self) -> Decided | None:
        """Return the swap that was decided and is not finished."""
        return _read(self._journal)

    def finish(self, decided: Decided, *, config_dir: Path) -> Path:
        """Do what was decided, from wherever it stands, and return the folder that keeps what was there before.

        Raises:
            StateError: the disk does not take it; it can be finished later.
        """
        with _said(self.work):
            if _read(self.state / MARK) != decided:
                self._exchange()
            self._carry_over()
            if (self.new / "state").exists():
                (self.new / "state").rename(self.old / "state")
            self._put_config(config_dir)
            before = self.state.with_name(decided.before)
            durable_files.remove(self._journal)
            self.work.rename(before)
            durable_files.flush(self.state.parent)
        return before

    def _exchange(self) -> None:
        fresh = self.new / "state"
        if not self.state.exists():
            fresh.rename(self.state)
        elif not _exchanged(fresh, self.state):
            # Not at one moment, where the file system can't. A run that goes on between the two finds a state folder
            # that has only its own lock in it.
            self.state.rename(self.old / ("stub" if (self.old / "state").exists() else "state"))
            fresh.rename(self.state)
        for folder in (self.state.parent, self.new, self.old):
            durable_files.flush(folder)

    def _carry_over(self) -> None:
        """Move what no backup holds from the old state to the new: the models, and what backups themselves need."""
        carried = [Path(OWN)]
        with contextlib.suppress(ValueError):
            carried.append(self.models.relative_to(self.state))
        for old in (self.new / "state", self.old / "state"):
            for name in carried:
                if (old / name).exists() and not (self.state / name).exists() and name.parts:
                    (self.state / name).parent.mkdir(parents=True, exist_ok=True)
                    (old / name).rename(self.state / name)

    def _put_config(self, config_dir: Path) -> None:
        fresh = self.new / "config"
        for path in sorted(fresh.rglob("*")) if fresh.is_dir() else []:
            target = config_dir / path.relative_to(fresh)
            if path.is_symlink():
                durable_files.link(target, str(path.readlink()))
            elif path.is_file():
                status = path.stat()
                durable_files.write(target, path.read_bytes(), mode=status.st_mode & 0o7777, group=status.st_gid)
                if os.geteuid() == 0:
                    os.chown(target, status.st_uid, status.st_gid)


@contextlib.contextmanager
def _said(folder: Path) -> Iterator[None]:
    """Say an error of the disk with its file."""
    try:
        yield
    except OSError as error:
        raise StateError(f"{error.filename or folder}: {error.strerror}") from error


def _flush_all(folder: Path) -> None:
    """Have a folder and all below it on the disk."""
    for base, _, files in os.walk(folder):
        for name in files:
            path = Path(base) / name
            if not path.is_symlink():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        durable_files.flush(Path(base))


def _read(path: Path) -> Decided | None:
    try:
        return Decided.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValidationError):
        return None


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange two folders' names at one moment; False where the file system can't."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _UNSUPPORTED:
        return False
    raise OSError(number, os.strerror(number), str(other))
