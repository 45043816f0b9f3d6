"""What is backed up: the state folder without what can be had again, the settings, and what the settings add."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from appliance.backup.errors import StateError
from appliance.settings.model import Settings

OWN = "backup"
"""Folder of the state folder with what backups themselves need: the lock, the record, restic's cache."""

DROPPED = frozenset({OWN, "prefixes"})
"""Folders of the state folder that are not backed up. Prefixes are computed anew, and hold what people said."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file or folder, and where it is in the backup."""

    path: Path
    place: PurePosixPath


@dataclass(frozen=True, slots=True)
class Found:
    """Something below a source."""

    path: Path
    place: PurePosixPath
    status: os.stat_result


def sources(settings: Settings, config_dir: Path) -> tuple[Source, ...]:
    """Return what a backup of this machine begins with."""
    further = (
        Source(path, PurePosixPath("include", *path.parts[1:]))
        for path in settings.backup.include
        if path.parts[1:]  # the root itself would be everything
    )
    return (
        Source(settings.paths.state, PurePosixPath("state")),
        Source(config_dir, PurePosixPath("config")),
        *further,
    )


def left_out(settings: Settings) -> frozenset[Path]:
    """Return the folders that no backup goes into; the repository's own is one of them."""
    repository = settings.backup.repository or ""
    own = {Path(repository)} if repository.startswith("/") else set()
    return frozenset({settings.paths.models, *(settings.paths.state / name for name in DROPPED), *own})


def walk(source: Source, without: frozenset[Path]) -> Iterator[Found]:
    """Yield a source and all below it, parents first, in the order of their names.

    Sockets, pipes and devices are left out, as are files that vanish meanwhile; symbolic links are not followed.

    Raises:
        StateError: a folder can't be read.
    """
    if source.path in without:
        return
    try:
        status = source.path.lstat()
        kind = stat.S_IFMT(status.st_mode)
        if kind not in {stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK}:
            return
        names = sorted(path.name for path in source.path.iterdir()) if kind == stat.S_IFDIR else []
    except FileNotFoundError:
        return
    except OSError as error:
        raise StateError(f"{source.path}: can't be read: {error.strerror}") from error
    yield Found(source.path, source.place, status)
    for name in names:
        yield from walk(Source(source.path / name, source.place / name), without)
