"""Files that appear whole or not at all, also when the power goes."""

import contextlib
import os
import tempfile
from pathlib import Path


def write(path: Path, content: bytes, *, mode: int, group: int | None = None) -> bool:
    """Write a file unless it is already so, and return whether that was needed.

    Raises:
        OSError: the disk does not take it; what was there is untouched.
    """
    if _is(path, content, mode, group):
        return False
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:32]}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(descriptor, mode)
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
