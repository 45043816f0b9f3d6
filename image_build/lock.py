"""`packages.lock`: every Debian package of a build with version and hash. It names no mirror."""

import hashlib
import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from image_build.errors import LockError

_HOW = "`rouse image lock` writes it anew from the mirror's packages"


class LockedPackage(BaseModel):
    """One package file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9+.-]+$")
    version: str = Field(pattern=r"^[0-9A-Za-z.+:~-]+$")
    architecture: str = Field(pattern=r"^[a-z0-9-]+$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class _Root(BaseModel):
    """The packages of one root: those asked for, and all that came."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    wanted: tuple[str, ...]
    packages: tuple[LockedPackage, ...]


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    epoch: int = Field(default=0, ge=0)
    roots: dict[str, _Root] = {}


class PackageLock:
    """The lock file of one architecture."""

    def __init__(self, path: Path) -> None:
        """Read the file; one that is not there names nothing.

        Raises:
            LockError: it can't be read.
        """
        self.path = path
        try:
            self._file = _File.model_validate_json(path.read_bytes()) if path.exists() else _File()
        except (OSError, ValidationError) as error:
            raise LockError(f"{path} can't be read ({error}); {_HOW}") from error

    @property
    def epoch(self) -> int:
        """When the packages were taken, in seconds since 1970: the time stamp of what is made of them alone."""
        return self._file.epoch

    def packages(self, root: str) -> tuple[LockedPackage, ...]:
        """Return a root's packages.

        Raises:
            LockError: the file does not have this root.
        """
        if root not in self._file.roots:
            raise LockError(f"{self.path} says nothing of the packages for {root!r}; {_HOW}")
        return self._file.roots[root].packages

    def check_wanted(self, root: str, wanted: Sequence[str]) -> None:
        """Check that the file was made for these packages.

        Raises:
            LockError: it was made for others.
        """
        self.packages(root)
        before, now = set(self._file.roots[root].wanted), set(wanted)
        if before != now:
            changes = [f"+{name}" for name in sorted(now - before)] + [f"-{name}" for name in sorted(before - now)]
            raise LockError(
                f"{self.path} is older than the list of packages for {root!r} ({' '.join(changes)}); {_HOW}"
            )

    def replace(self, root: str, wanted: Sequence[str], packages: Mapping[LockedPackage, Path], epoch: int) -> None:
        """Replace what the file says of a root and when that was, and write it."""
        ordered = tuple(sorted(packages, key=lambda package: package.name))
        roots = {**self._file.roots, root: _Root(wanted=tuple(sorted(wanted)), packages=ordered)}
        self._file = _File(epoch=epoch, roots=dict(sorted(roots.items())))
        lines = [
            f"{json.dumps(name)}: {{\n"
            f'"wanted": {json.dumps(list(found.wanted))},\n"packages": [\n'
            + ",\n".join(package.model_dump_json() for package in found.packages)
            + "\n]}"
            for name, found in self._file.roots.items()
        ]
        new = self.path.with_suffix(".new")
        new.write_text(f'{{"epoch": {epoch}, "roots": {{\n' + ",\n".join(lines) + "\n}}\n")
        new.replace(self.path)


def read_debs(folder: Path) -> dict[LockedPackage, Path]:
    """Return the package files of a folder.

    Raises:
        LockError: one is no package.
    """
    found = {}
    for file in sorted(folder.glob("*.deb")):
        shown = subprocess.run(
            ["dpkg-deb", "--show", "--showformat", "${Package}\n${Version}\n${Architecture}", str(file)],
            check=False,
            capture_output=True,
            text=True,
        )
        fields = shown.stdout.split("\n")
        if shown.returncode != 0 or len(fields) != 3:
            raise LockError(f"{file} is no Debian package: {shown.stderr.strip()}")
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        found[LockedPackage(name=fields[0], version=fields[1], architecture=fields[2], sha256=digest)] = file
    return found
