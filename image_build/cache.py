"""What is slow is kept: folders by a key of all that went into them."""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from image_build.errors import ImageError

_COMPLETE = ".complete"


def key_of(*inputs: object) -> str:
    """Return a key for inputs: texts, numbers, lists and the contents of paths (a folder's with its names)."""
    digest = hashlib.sha256()
    for item in inputs:
        digest.update(_content(item))
        digest.update(b"\0")
    return digest.hexdigest()[:16]


def _content(item: object) -> bytes:
    if not isinstance(item, Path):
        return json.dumps(item, sort_keys=True, default=str).encode()
    if item.is_dir():
        return b"".join(
            str(path.relative_to(item)).encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest()
            for path in sorted(item.rglob("*"))
            if path.is_file() and "__pycache__" not in path.parts
        )
    return hashlib.sha256(item.read_bytes()).digest()


class Cache:
    """Folders that were made once. A folder that was not finished is made again from nothing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, name: str, key: str, make: Callable[[Path], None]) -> tuple[Path, bool]:
        """Return the folder of this name and key, and whether it was there; make it if not.

        Older folders of the name stay: `clean` takes them.
        """
        folder = self.folder / f"{name}-{key}"
        self.folder.mkdir(parents=True, exist_ok=True)
        with _locked(self.folder / f"{name}.lock"):
            complete = folder.with_name(folder.name + _COMPLETE)
            if complete.exists() and folder.exists():
                return folder, True
            remove(folder)
            make(folder)
            complete.touch()
        return folder, False

    def forget(self, name: str, key: str) -> None:
        """Make this folder again next time."""
        (self.folder / f"{name}-{key}{_COMPLETE}").unlink(missing_ok=True)

    def clean(self, name: str, key: str) -> None:
        """Delete the folders of this name that have other keys."""
        for path in self.folder.glob(f"{name}-*"):
            rest = path.name.removeprefix(f"{name}-").removesuffix(_COMPLETE)
            if len(rest) == len(key) and rest != key:
                remove(path)


def remove(path: Path) -> None:
    """Delete a file or a folder, if it is there.

    Raises:
        ImageError: something is mounted below it, which is left alone.
    """
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return
    mounted = [point for point in _mount_points() if point.is_relative_to(path.resolve())]
    if mounted:
        raise ImageError(f"{path} can't be deleted while {mounted[0]} is mounted; end what uses it, and unmount it")
    shutil.rmtree(path)


def _mount_points() -> list[Path]:
    """Return where something is mounted (proc_pid_mountinfo(5): the fifth field, with octal escapes)."""
    lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    return [Path(os.fsdecode(line.split(b" ")[4].decode("unicode_escape").encode("latin-1"))) for line in lines]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
