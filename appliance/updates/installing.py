"""The root part of an update: trusts nothing of what was downloaded, and has systemd-sysupdate install a verified copy.

Whoever can write to the downloads could change a file between its verification and its use. So each file is copied
into a folder that only root may write, hashed while it is copied, and installed from there.
"""

import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from appliance import durable_files
from appliance.updates import kernels, signature, sysupdate
from appliance.updates.errors import InstallError, RefusedError, SignatureError, SpaceError, UpdateError
from appliance.updates.image import ImagePaths, architecture, came_up, require_version
from appliance.updates.published import (
    MOST_SIGNATURE_BYTES,
    MOST_SUMS_BYTES,
    SIGNATURE,
    SUMS,
    PublishedFile,
    Release,
    read_sums,
)
from appliance.updates.records import Baseline, Before, Outcome, read, write
from appliance.updates.slots import Slots, read_slots
from appliance.updates.versions import is_newer, is_version

_log = logging.getLogger(__name__)

BEFORE = "before.json"
OUTCOME = "outcome.json"
BASELINE = "baseline.json"
_LOCK = "lock"
_BLOCK = 1 << 20
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_RESERVE = 64 << 20
"""What a copy leaves free, so that logs and settings can still be written."""
_COPYING = 0.4
"""Share of the work that copying and hashing is."""

_UDEV_SECONDS = 60.0

type OnProgress = Callable[[float, str], None]
"""Called with how much is done, 0 to 1, and what is being done."""


@dataclass(frozen=True, slots=True)
class RootPart:
    """Installs versions, and goes back.

    Attributes:
        paths: where things are.
        on_progress: hears how it goes.
        slots: reads the disk's slots.
        monotonic: tells the time.
    """

    paths: ImagePaths
    on_progress: OnProgress
    slots: Callable[[], Slots] = lambda: read_slots(architecture())
    monotonic: Callable[[], float] = time.monotonic

    def install(self, version: str) -> None:
        """Install a version that was downloaded; how it went is written down, too.

        Raises:
            UpdateError: it is not installed.
        """
        with self._recorded(version):
            running = require_version(self.paths)
            if not is_version(version) or version == running:
                raise RefusedError(f"{version!r} can't be installed: it is what runs, or no version")
            slots = self.slots()
            release = self._verified(version)
            self._copy(release, slots)
            self._keep_baseline(version)
            self._install(release)
            if is_newer(running, version):
                self._start_other_first(running)

    def go_back(self) -> str:
        """Let the version in the other slot start next, and come back by itself if it does not come up; return it.

        Raises:
            UpdateError: there is none that ever worked.
        """
        running = require_version(self.paths)
        with self._recorded(running):
            others = [kernel for kernel in kernels.installed(self.paths.kernels) if kernel.version != running]
            whole = self.slots().versions
            good = [kernel for kernel in others if kernel.version in whole and came_up(self.paths, kernel.version)]
            if not good:
                raise RefusedError("there is no earlier version to go back to: the other slot has none that came up")
            self._keep_baseline(good[0].version)
            kernels.try_anew(good[0])
            self._start_other_first(running)
            return good[0].version

    def _verified(self, version: str) -> Release:
        """Take over the list of checksums, verify its signature, and return what it says of a version."""
        own = self.paths.files
        shutil.rmtree(own, ignore_errors=True)
        own.mkdir(mode=0o700, parents=True)
        staged = self.paths.staged / version
        _take(staged / SUMS, own / SUMS, most=MOST_SUMS_BYTES)
        _take(staged / SIGNATURE, own / SIGNATURE, most=MOST_SIGNATURE_BYTES)
        signature.verify(own / SUMS, own / SIGNATURE, keys=self.paths.keys)
        for release in read_sums((own / SUMS).read_bytes(), architecture()):
            if release.version == version:
                return release
        raise InstallError(f"what was downloaded is not version {version} for this machine")

    def _copy(self, release: Release, slots: Slots) -> None:
        limits = {"root": slots.root_size, "verity": slots.verity_size, "efi": self._room_for_kernel()}
        sources = [(file, self.paths.staged / release.version / file.name) for file in release.files]
        sizes = {file.name: _size(source) for file, source in sources}
        for file, _ in sources:
            if sizes[file.name] > limits[file.kind]:
                raise SpaceError(
                    f"{file.name} has {sizes[file.name]} bytes, and its place on the disk has {limits[file.kind]}"
                )
        total = sum(sizes.values())
        free = shutil.disk_usage(self.paths.own).free
        if free < total + _RESERVE:
            raise SpaceError(f"{self.paths.own}: {total / 1e6:.0f} MB are needed and {free / 1e6:.0f} MB are free")
        done = 0
        for file, source in sources:

            def count(size: int, name: str = file.name) -> None:
                nonlocal done
                done += size
                self.on_progress(min(_COPYING * done / max(total, 1), _COPYING), f"verifying {name}")

            digest = _take(source, self.paths.files / _name(release.version, file), most=sizes[file.name], count=count)
            if digest != file.sha256:
                raise SignatureError(f"{file.name} is not what was signed")

    def _room_for_kernel(self) -> int:
        """Bytes that the boot partition has for a kernel, once the one in the other slot is gone."""
        kernels.remove_leftovers(self.paths.kernels)
        others = kernels.installed(self.paths.kernels)
        running = require_version(self.paths)
        going = sum(kernel.path.stat().st_size for kernel in others if kernel.version != running)
        return shutil.disk_usage(self.paths.kernels).free + going

    def _keep_baseline(self, version: str) -> None:
        found = read(self.paths.staged / BASELINE, Baseline)
        try:
            write(self.paths.own / BEFORE, Before(version=version, baseline=found or Baseline()))
        except OSError as error:
            raise InstallError(f"{self.paths.own} can't be written: {error}") from error

    def _install(self, release: Release) -> None:
        self.on_progress(_COPYING, "emptying the other slot")
        sysupdate.empty_other_slot()

        def show(percent: int) -> None:
            self.on_progress(_COPYING + (1 - _COPYING) * percent / 100, "writing the other slot")

        try:
            sysupdate.install(release.version, show)
            self._look_for(release)
        except UpdateError:
            # Nothing that is not known to be whole may start next.
            with contextlib.suppress(UpdateError):
                sysupdate.empty_other_slot()
            raise

    def _look_for(self, release: Release) -> None:
        """See that a version is on the disk; udev takes a moment to know new partitions."""
        parts = {file.part for file in release.files if file.part is not None}
        end = self.monotonic() + _UDEV_SECONDS
        while not parts <= self.slots().parts:
            if self.monotonic() >= end:
                raise InstallError("systemd-sysupdate says that all went well, but the partitions are not there")
            time.sleep(1)
        if all(kernel.version != release.version for kernel in kernels.installed(self.paths.kernels)):
            raise InstallError("systemd-sysupdate says that all went well, but the kernel is not there")

    def _start_other_first(self, running: str) -> None:
        """Put the running version last, whose kernel would otherwise come first as the newer one.

        It is tried again when the other one has used up its tries, and is good again as soon as it comes up.
        """
        for kernel in kernels.installed(self.paths.kernels):
            if kernel.version == running:
                kernels.put_last(kernel)

    @contextlib.contextmanager
    def _recorded(self, version: str) -> Iterator[None]:
        """Write down how it went, for the daemon, which sees no exit code after a restart of its own."""
        error = "it was interrupted"
        with self._alone():
            (self.paths.own / OUTCOME).unlink(missing_ok=True)
            try:
                yield
                error = ""
            except UpdateError as failure:
                error = str(failure)
                raise
            finally:
                shutil.rmtree(self.paths.files, ignore_errors=True)
                with contextlib.suppress(OSError, ValidationError):
                    write(self.paths.own / OUTCOME, Outcome(version=version, ok=not error, error=error[:1000]))

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        try:
            lock = (self.paths.own / _LOCK).open("w")
        except OSError as error:
            raise InstallError(f"{self.paths.own} can't be written: {error.strerror}") from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RefusedError("another version is being installed at this moment") from None
            yield


def _name(version: str, file: PublishedFile) -> str:
    """Return a file's name in the transfer files, which know no architecture."""
    part = f"_{file.part}" if file.part is not None else ""
    return f"rouse_{version}{part}.{file.kind}"


def _size(path: Path) -> int:
    try:
        found = path.lstat()
    except OSError as error:
        raise InstallError(f"{path.name} was not downloaded: {error.strerror}") from error
    if not stat.S_ISREG(found.st_mode):
        raise InstallError(f"{path.name} is no file")
    return found.st_size


def _take(source: Path, target: Path, *, most: int, count: Callable[[int], None] = lambda _: None) -> str:
    """Copy a file that a stranger may be changing, and return the hash of what was copied.

    Raises:
        InstallError: it is no regular file, is larger than `most` bytes, or can't be copied.
    """
    digest = hashlib.sha256()
    try:
        reading = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(reading, "rb", buffering=0) as reader, target.open("xb", buffering=0) as writer:
            if not stat.S_ISREG(os.fstat(reading).st_mode):
                raise InstallError(f"{source.name} is no file")
            copied = 0
            while block := reader.read(_BLOCK):
                copied += len(block)
                if copied > most:
                    raise InstallError(f"{source.name} is larger than {most} bytes")
                digest.update(block)
                view = memoryview(block)
                while view:
                    view = view[writer.write(view) or 0 :]
                count(len(block))
            os.fsync(writer.fileno())
    except OSError as error:
        kind = SpaceError if error.errno in _FULL else InstallError
        raise kind(f"{source.name} can't be copied: {error.strerror}") from error
    durable_files.flush(target.parent)
    return digest.hexdigest()
