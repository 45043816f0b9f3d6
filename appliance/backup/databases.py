"""SQLite databases, which are copied by SQLite itself: a plain copy of one in use may be torn.

https://www.sqlite.org/backup.html, https://www.sqlite.org/fileformat.html
"""

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

_MAGIC = b"SQLite format 3\x00"
_COMPANIONS = ("-wal", "-shm", "-journal")
_PATIENCE_SECONDS = 30.0
"""How long a writer may hold the database back; ours hold it for milliseconds."""


def is_database(path: Path) -> bool:
    """Whether a file is an SQLite database. Raises OSError."""
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def is_companion(path: Path) -> bool:
    """Whether a file belongs to a database beside it, whose copy has all that is in it. Raises OSError."""
    for suffix in _COMPANIONS:
        if path.name.endswith(suffix):
            database = path.with_name(path.name.removesuffix(suffix))
            return database.is_file() and is_database(database)
    return False


def copy(source: Path, target: Path) -> str | None:
    """Copy a database as it is at one moment, while others may write to it.

    Returns what is wrong with it, or None. It is opened for writing, because a database with a write-ahead log can't
    be read otherwise; run as root, SQLite gives the log to the database's owner.

    Raises:
        sqlite3.Error: it can't be read, or is held by another process for too long.
    """
    uri = f"file:{quote(str(source))}?mode=rw"
    with (
        closing(sqlite3.connect(uri, uri=True, timeout=_PATIENCE_SECONDS)) as live,
        closing(sqlite3.connect(target)) as kept,
    ):
        live.backup(kept)
        found = [str(row[0]) for row in kept.execute("PRAGMA quick_check(1)")]
    return None if found == ["ok"] else found[0]
