"""An append-only log of what was done to machines and with certificates, and on whose word.

Entries are lines of JSON, each appended to the file and brought to the disk before its deed is reported. After a
power cut the last line may be cut off; it is ended before the next one is written. When the file is too long it gets a
number, and the oldest goes.
"""

import fcntl
import json
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance.durable_files import adopt, flush, make_folder
from appliance.security.layout import hub_folder

MAX_FILE_BYTES = 1024 * 1024
"""About five thousand entries: years of a quiet house."""
KEPT_FILES = 4
"""Files with a number, beside the one that is written."""
MAX_TEXT = 1000
"""Characters of each part of an entry: what a machine or a stranger says must not fill the disk."""


class AuditError(Exception):
    """The log can't be written or read; the message names the file."""


def audit_file(state: Path) -> Path:
    """Return where the log is, in a state folder."""
    return hub_folder(state) / "audit.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Something that was done."""

    time: float
    """Unix time."""
    who: str
    """On whose word: `hub`, or what asked it, such as `request` or `command`."""
    what: str
    """What was done, such as `wake` or `recovery.ipmi`."""
    subject: str
    """To whom, such as a node's name."""
    outcome: str
    """How it ended, in a word."""
    detail: str = ""
    """What was seen, in a sentence; never a secret."""


class AuditLog:
    """Writes entries; several processes may write to one file."""

    def __init__(
        self,
        file: Path,
        *,
        max_bytes: int = MAX_FILE_BYTES,
        kept: int = KEPT_FILES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._file = file
        self._max_bytes = max_bytes
        self._kept = kept
        self._clock = clock
        self._lock = threading.Lock()

    def record(self, who: str, what: str, subject: str, outcome: str, detail: str = "") -> Entry:
        """Append an entry and return it when it is on the disk. It blocks for as long as that takes.

        Raises:
            AuditError: the disk does not take it.
        """
        entry = Entry(
            time=round(self._clock(), 3),
            who=who[:MAX_TEXT],
            what=what[:MAX_TEXT],
            subject=subject[:MAX_TEXT],
            outcome=outcome[:MAX_TEXT],
            detail=detail[:MAX_TEXT],
        )
        line = json.dumps(_as_json(entry), ensure_ascii=True).encode() + b"\n"
        try:
            with self._lock:
                self._append(line)
        except OSError as error:
            raise AuditError(f"{self._file}: can't be written: {error}") from error
        return entry

    def _append(self, line: bytes) -> None:
        make_folder(self._file.parent)
        while True:
            descriptor = os.open(self._file, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                if not self._is_current(descriptor):
                    continue  # another process has given it a number meanwhile
                size = os.fstat(descriptor).st_size
                if not size:
                    adopt(descriptor, self._file.parent)
                if size and size + len(line) > self._max_bytes:
                    self._rotate()
                    continue
                if size and os.pread(descriptor, 1, size - 1) != b"\n":
                    line = b"\n" + line
                _write_all(descriptor, line)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if not size:
                flush(self._file.parent)
            return

    def _is_current(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self._file.stat(follow_symlinks=False))
        except FileNotFoundError:
            return False

    def _rotate(self) -> None:
        """Number the files anew; the caller holds the lock of the one that is written."""
        for number in range(self._kept, 0, -1):
            newer = self._file if number == 1 else _numbered(self._file, number - 1)
            if newer.exists():
                newer.replace(_numbered(self._file, number))
        if not self._kept:
            self._file.unlink()
        flush(self._file.parent)


def read_audit(file: Path, *, last: int, kept: int = KEPT_FILES) -> tuple[Entry, ...]:
    """Return the last entries, oldest first. Lines that are cut off or foreign are left out.

    Raises:
        AuditError: there is a log that can't be read.
    """
    found: deque[Entry] = deque(maxlen=last)
    for path in (*(_numbered(file, number) for number in range(kept, 0, -1)), file):
        try:
            with path.open(encoding="utf-8", errors="replace") as lines:
                found.extend(_entries(lines))
        except FileNotFoundError:
            continue
        except OSError as error:
            raise AuditError(f"{path}: can't be read: {error}") from error
    return tuple(found)


def _entries(lines: Iterator[str]) -> Iterator[Entry]:
    for line in lines:
        try:
            told = json.loads(line)
            parts = {name: told[name] for name in ("who", "what", "subject", "outcome", "detail")}
            yield Entry(time=float(told["time"]), **{name: str(value) for name, value in parts.items()})
        except (ValueError, KeyError, TypeError):
            continue


def _as_json(entry: Entry) -> Mapping[str, Any]:
    return {
        "time": entry.time,
        "who": entry.who,
        "what": entry.what,
        "subject": entry.subject,
        "outcome": entry.outcome,
        "detail": entry.detail,
    }


def _numbered(file: Path, number: int) -> Path:
    return file.with_name(f"{file.name}.{number}")


def _write_all(descriptor: int, content: bytes) -> None:
    while content:
        content = content[os.write(descriptor, content) :]
