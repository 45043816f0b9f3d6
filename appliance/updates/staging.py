"""What is downloaded, in the node daemon's own folder; the root part judges it, and verifies all of it anew."""

import asyncio
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from appliance import durable_files
from appliance.models.part import file_sha256
from appliance.updates import signature
from appliance.updates.errors import RefusedError, SpaceError
from appliance.updates.published import (
    MOST_SIGNATURE_BYTES,
    MOST_SUMS_BYTES,
    SIGNATURE,
    SUMS,
    Architecture,
    Kind,
    Release,
    read_sums,
)
from appliance.updates.source import Source, free_room
from appliance.updates.versions import is_version

_LOOK = "look"
_RESERVE = 256 << 20
"""Left free for everything else."""
MOST_BYTES: Mapping[Kind, int] = {"root": 4 << 30, "verity": 64 << 20, "efi": 512 << 20}
"""Where the slots' sizes are not known; the root part knows them."""

type OnProgress = Callable[[float, str], None]
"""Called with the share of the download that is here, and the name of what comes."""


@dataclass(frozen=True, slots=True)
class Index:
    """A publisher's list, its signature verified."""

    sums: bytes
    signature: bytes
    releases: tuple[Release, ...]

    def find(self, version: str | None) -> Release:
        """Return a version, or the newest.

        Raises:
            RefusedError: it is not published for this machine.
        """
        for release in self.releases:
            if version is None or release.version == version:
                return release
        there = ", ".join(release.version for release in self.releases) or "none"
        raise RefusedError(f"version {version or 'any'} is not published for this machine (there are: {there})")


class Staging:
    """The folder of downloads."""

    def __init__(self, folder: Path, *, keys: Sequence[Path], architecture: Architecture) -> None:
        """Take the folder, the publisher's keys, and what this machine is."""
        self.folder = folder
        self._keys = keys
        self._architecture = architecture

    async def look(self, source: Source) -> Index:
        """Read what is published.

        Raises:
            SourceError: it can't be had.
            SignatureError: it is not signed by one of the keys.
        """
        sums = await source.small(SUMS, MOST_SUMS_BYTES)
        signed = await source.small(SIGNATURE, MOST_SIGNATURE_BYTES)
        await asyncio.to_thread(self._verify, sums, signed)
        return Index(sums, signed, read_sums(sums, self._architecture))

    async def bring(
        self, source: Source, index: Index, release: Release, most: Mapping[Kind, int], on_progress: OnProgress
    ) -> None:
        """Download a version; what is here of it already is kept.

        Raises:
            UpdateError: it can't be had; what came is kept for the next time, where that makes sense.
        """
        target = self.folder / release.version
        await asyncio.to_thread(self._begin, target, index)
        # The largest first: it is most of the progress, and of what may find no room.
        files = sorted(release.files, key=lambda file: ("root", "efi", "verity").index(file.kind))
        for number, file in enumerate(files):
            share, begun = (0.85, 0.0) if number == 0 else (0.075, 0.85 + 0.075 * (number - 1))

            def show(
                done: int, total: int | None, begun: float = begun, share: float = share, name: str = file.name
            ) -> None:
                on_progress(begun + share * done / max(total or done, 1), name)

            if not await asyncio.to_thread(_is_there, target / file.name, file.sha256):
                room = free_room(self.folder, _RESERVE)
                await source.fetch(file, target / file.name, most=most[file.kind], on_bytes=show, room=room)
            show(1, 1)

    def size(self, version: str) -> int:
        """Return the bytes that are here of a version."""
        return sum(path.stat().st_size for path in (self.folder / version).glob("*") if path.is_file())

    def keep_only(self, version: str | None) -> None:
        """Remove all other versions' files; what can't be removed stays."""
        if self.folder.is_dir():
            for path in self.folder.iterdir():
                if path.is_dir() and path.name != version and (is_version(path.name) or path.name == _LOOK):
                    shutil.rmtree(path, ignore_errors=True)

    def _verify(self, sums: bytes, signed: bytes) -> None:
        folder = self.folder / _LOOK
        try:
            self._write(folder, sums, signed)
        except OSError as error:
            raise SpaceError(f"{folder} can't be written: {error.strerror}") from error
        signature.verify(folder / SUMS, folder / SIGNATURE, keys=self._keys)

    def _begin(self, target: Path, index: Index) -> None:
        self.keep_only(target.name)
        try:
            self._write(target, index.sums, index.signature)
        except OSError as error:
            raise SpaceError(f"{target} can't be written: {error.strerror}") from error

    def _write(self, folder: Path, sums: bytes, signed: bytes) -> None:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        durable_files.write(folder / SUMS, sums, mode=0o644)
        durable_files.write(folder / SIGNATURE, signed, mode=0o644)


def _is_there(path: Path, sha256: str) -> bool:
    if not path.is_file() or path.is_symlink():
        return False
    if file_sha256(path, lambda _: None) == sha256:
        return True
    path.unlink()
    return False
