"""Writes to the system; what the disk refuses is one clear error."""

import contextlib
import grp
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from appliance import durable_files
from appliance.firstboot.errors import ApplyError


def write(path: Path, content: bytes, *, mode: int, group: int | None = None) -> bool:
    """Write a file unless it is already so, and return whether that was needed.

    Raises:
        ApplyError: the disk does not take it.
    """
    with _said(path, "written"):
        return durable_files.write(path, content, mode=mode, group=group)


def link(path: Path, target: str) -> bool:
    """Make a symbolic link unless it is there, and return whether that was needed.

    Raises:
        ApplyError: the disk does not take it.
    """
    with _said(path, "linked"):
        return durable_files.link(path, target)


def remove(path: Path) -> bool:
    """Remove a file, and return whether there was one.

    Raises:
        ApplyError: the disk does not let it go.
    """
    with _said(path, "removed"):
        return durable_files.remove(path)


def make_private_folder(path: Path) -> None:
    """Make a folder that only its owner may enter.

    Raises:
        ApplyError: the disk does not take it.
    """
    with _said(path, "made"):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)


def group_number(root: Path, name: str) -> int | None:
    """Return the number of a group of the system in `root`, or None if it has no such group."""
    if root == Path("/"):
        with contextlib.suppress(KeyError):
            return grp.getgrnam(name).gr_gid
        return None
    try:
        lines = (root / "etc/group").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(fields[2]) for line in lines if (fields := line.split(":"))[0] == name and len(fields) > 2), None)


@contextmanager
def _said(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ApplyError(f"{path}: can't be {what}: {error.strerror}; first boot runs as root") from error
