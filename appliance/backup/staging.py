"""A consistent copy of what is backed up, in a folder of its own, which restic then reads in peace."""

import grp
import hashlib
import os
import pwd
import shutil
import sqlite3
import stat
from collections.abc import Iterable
from pathlib import Path

from appliance.backup import databases
from appliance.backup.contents import Found
from appliance.backup.errors import StateError
from appliance.backup.manifest import Entry

_TRIES = 5
"""How often a file that changes while it is copied is copied again."""


class Staging:
    """The folder. What it is asked to take, it copies; it remembers what there was, and what went wrong."""

    def __init__(self, folder: Path) -> None:
        """Take the folder, of which nothing is kept."""
        self._folder = folder
        self.entries: list[Entry] = []
        self.problems: list[str] = []

    def begin(self) -> None:
        """Make the folder, empty and for nobody else. Raises StateError."""
        self.end()
        try:
            self._folder.mkdir(mode=0o700, parents=True)
        except OSError as error:
            raise StateError(f"{self._folder}: can't be made: {error.strerror}") from error

    def end(self) -> None:
        """Remove the folder. Raises StateError."""
        try:
            if self._folder.exists():
                shutil.rmtree(self._folder)
        except OSError as error:
            raise StateError(f"{self._folder}: can't be removed: {error.strerror}") from error

    def take(self, found: Iterable[Found]) -> None:
        """Copy files and folders, parents first.

        Raises:
            StateError: something can't be read, or the disk is full.
        """
        for one in found:
            try:
                self._take(one)
            except FileNotFoundError:
                if not self._folder.is_dir():
                    raise
                # It vanished after its folder was read, as drafts do.
            except OSError as error:
                raise StateError(f"{error.filename or one.path}: can't be copied: {error.strerror}") from error

    def _take(self, found: Found) -> None:
        place = str(found.place)
        if not place.isprintable():
            self.problems.append(f"{found.path!r}: left out, because of its name")
            return
        target = self._folder / place
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if stat.S_ISDIR(found.status.st_mode):
            target.mkdir(mode=0o700, exist_ok=True)
            self._note(place, found.status)
        elif stat.S_ISLNK(found.status.st_mode):
            pointed = found.path.readlink()
            target.symlink_to(pointed)
            self._note(place, found.status, bytes(pointed))
        elif databases.is_companion(found.path):
            return
        elif databases.is_database(found.path):
            self._take_database(found, target, place)
        else:
            status = self._copy(found.path, target)
            self._note_file(place, status, target)

    def _take_database(self, found: Found, target: Path, place: str) -> None:
        wrong: str | None
        try:
            wrong = databases.copy(found.path, target)
        except sqlite3.OperationalError as error:
            raise StateError(f"{found.path}: this database can't be copied: {error}") from error
        except sqlite3.DatabaseError as error:
            wrong = str(error)
        if wrong is not None:
            self.problems.append(f"{found.path}: this database is damaged ({wrong}); it was copied as it is")
            target.unlink(missing_ok=True)
            self._copy(found.path, target)
        os.utime(target, ns=(found.status.st_atime_ns, found.status.st_mtime_ns))
        self._note_file(place, found.status, target)

    def _copy(self, source: Path, target: Path) -> os.stat_result:
        """Copy a file that nobody wrote to meanwhile, and return what it was."""
        for _ in range(_TRIES):
            with source.open("rb") as file, target.open("wb") as copy:
                before = os.fstat(file.fileno())
                shutil.copyfileobj(file, copy, 1 << 20)
                after = os.fstat(file.fileno())
            if (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns):
                break
        else:
            self.problems.append(f"{source}: changed while it was copied, {_TRIES} times; the copy may be torn")
        os.utime(target, ns=(after.st_atime_ns, after.st_mtime_ns))
        return after

    def _note_file(self, place: str, status: os.stat_result, target: Path) -> None:
        with target.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        target.chmod(0o600)
        self.entries.append(_entry(place, "file", status, size=target.stat().st_size, sha256=digest))

    def _note(self, place: str, status: os.stat_result, content: bytes | None = None) -> None:
        if content is None:
            self.entries.append(_entry(place, "folder", status))
        else:
            digest = hashlib.sha256(content).hexdigest()
            self.entries.append(_entry(place, "link", status, sha256=digest))


def _entry(place: str, kind: str, status: os.stat_result, *, size: int = 0, sha256: str | None = None) -> Entry:
    return Entry.model_validate(
        {
            "path": place,
            "kind": kind,
            "mode": stat.S_IMODE(status.st_mode),
            "user": _user(status.st_uid),
            "group": _group(status.st_gid),
            "size": size,
            "sha256": sha256,
        }
    )


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)
