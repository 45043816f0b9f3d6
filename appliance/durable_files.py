"""Files that appear whole or not at all, also when the power goes.

What root makes belongs to whom its folder belongs, so that a service can read what a command made for it. A folder
that passes its group on (set-group-ID) is shared with that group, which reads what would be for its owner alone.
"""

import contextlib
import errno
import os
import stat
import tempfile
from pathlib import Path

PRIVATE, SHARED = 0o600, 0o640


def write(path: Path, content: bytes, *, mode: int, group: int | None = None) -> bool:
    """Write a file unless it is already so, and return whether that was needed.

    Raises:
        OSError: the disk does not take it; what was there is untouched.
    """
    make_folder(path.parent, mode=0o755)
    mode = private_mode(path.parent) if mode == PRIVATE else mode
    if _is(path, content, mode, group):
        return False
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:32]}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(descriptor, mode)
            adopt(descriptor, path.parent)
            if group is not None:
                os.fchown(descriptor, -1, group)
            os.fsync(descriptor)
        Path(draft).replace(path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
    flush(path.parent)
    return True


def link(path: Path, target: str) -> bool:
    """Make a symbolic link unless it is there, and return whether that was needed.

    Raises:
        OSError: the disk does not take it.
    """
    if path.is_symlink() and str(path.readlink()) == target:
        return False
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.draft")
    draft.unlink(missing_ok=True)
    draft.symlink_to(target)
    draft.replace(path)
    flush(path.parent)
    return True


def remove(path: Path) -> bool:
    """Remove a file, and return whether there was one.

    Raises:
        OSError: the disk does not let it go.
    """
    try:
        path.unlink()
    except (FileNotFoundError, NotADirectoryError):
        return False
    flush(path.parent)
    return True


def adopt(descriptor: int, folder: Path) -> None:
    """As root, give a new file to whom its folder belongs.

    Raises:
        OSError: the disk does not take it.
    """
    if os.geteuid() != 0:
        return
    wanted, found = folder.stat(), os.fstat(descriptor)
    if (wanted.st_uid, wanted.st_gid) != (found.st_uid, found.st_gid):
        os.fchown(descriptor, wanted.st_uid, wanted.st_gid)


def private_mode(folder: Path) -> int:
    """Return the mode of a file in a folder that is for its owner, or for those whom the folder is shared with."""
    return SHARED if folder.stat().st_mode & stat.S_ISGID else PRIVATE


def make_folder(path: Path, *, mode: int = 0o700) -> None:
    """Make a folder and those above it, where they are missing.

    Raises:
        OSError: the disk does not take it.
    """
    if path.is_dir():
        return
    make_folder(path.parent, mode=mode)
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=mode)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            adopt(descriptor, path.parent)
        finally:
            os.close(descriptor)
    if not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))


def flush(folder: Path) -> None:
    """Have the names in a folder on the disk. FAT may refuse, and then has its own way."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is(path: Path, content: bytes, mode: int, group: int | None) -> bool:
    try:
        if path.is_symlink():
            return False
        status = path.stat()
        return (
            status.st_mode & 0o7777 == mode
            and (group is None or status.st_gid == group)
            and status.st_size == len(content)
            and path.read_bytes() == content
        )
    except (FileNotFoundError, NotADirectoryError):
        return False
