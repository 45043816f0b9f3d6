"""The way back: a backup is read into a folder beside the state, compared with its manifest, and put in place."""

import contextlib
import grp
import hashlib
import os
import pwd
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from appliance.backup.contents import OWN
from appliance.backup.errors import DamagedError, RefusedError, StateError
from appliance.backup.manifest import LARGEST_BYTES, NAME, Entry, Manifest, read_manifest
from appliance.backup.place import Place
from appliance.backup.snapshots import Snapshot
from appliance.backup.swap import Swap
from appliance.settings.model import Settings

type OnStep = Callable[[str], None]

_OURS = frozenset({OWN, "secrets/backup.password"})
"""What a state folder may have before a restore: what the restore itself needs."""
_WOULD_BE_REPLACED = "would be replaced; say --force, and it is kept in a folder beside"


@dataclass(frozen=True, slots=True)
class Restored:
    """A restore that was done."""

    manifest: Manifest
    before: Path | None
    """The folder that keeps what was there before; None when nothing was replaced."""
    folder: Path
    """Where the files are now."""


def restore_to(place: Place, snapshot: Snapshot, folder: Path, *, on_step: OnStep = lambda _: None) -> Restored:
    """Read a backup into an empty folder, and touch nothing else.

    Raises:
        RefusedError: the folder is not empty.
        DamagedError: what was read is not what was backed up.
        BackupError: it can't be read, or the disk can't be written.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise RefusedError(f"{folder}: is not empty")
    except OSError as error:
        raise StateError(f"{folder}: {error.strerror}") from error
    manifest = _fill(place, snapshot, folder, on_step)
    return Restored(manifest, None, folder)


def restore(
    place: Place,
    settings: Settings,
    snapshot: Snapshot,
    *,
    config_dir: Path,
    force: bool,
    on_step: OnStep = lambda _: None,
) -> Restored:
    """Put the machine's state and settings back as they were in a backup.

    What is there now is kept in a folder beside. Models stay where they are.

    Raises:
        RefusedError: there is a state that would be replaced, or a service uses it.
        DamagedError: what was read is not what was backed up; nothing was changed.
        BackupError: it can't be read, or the disk can't be written.
    """
    state = settings.paths.state
    swap = Swap(state, settings.paths.models)
    swap.abandon()
    if not force and (there := _what_is_there(settings)) is not None:
        raise RefusedError(f"{there}: {_WOULD_BE_REPLACED}")
    _nobody_uses(state)
    swap.begin()
    try:
        manifest = _fill(place, snapshot, swap.new, on_step)
        _keep_config(swap, config_dir, force=force)
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        swap.decide(snapshot.id, before=f"{state.name}.before-{stamp}-{snapshot.short}")
    except BaseException:
        swap.abandon()
        raise
    on_step("put in place")
    return Restored(manifest, finish(settings, config_dir=config_dir), state)


def finish(settings: Settings, *, config_dir: Path) -> Path | None:
    """Finish a restore that was decided and cut short; returns what keeps the old state, or None if there is none.

    Raises:
        StateError: the disk does not take it.
    """
    swap = Swap(settings.paths.state, settings.paths.models)
    decided = swap.decided()
    return swap.finish(decided, config_dir=config_dir) if decided is not None else None


def _fill(place: Place, snapshot: Snapshot, folder: Path, on_step: OnStep) -> Manifest:
    on_step("read the backup")
    place.restic.run("restore", snapshot.id, "--target", str(folder))
    on_step("compare with the manifest")
    try:
        with (folder / NAME).open("rb") as file:
            manifest = read_manifest(file.read(LARGEST_BYTES))
        _compare(folder, manifest, snapshot)
        for entry in reversed(manifest.entries):
            _own(folder / entry.path, entry)
    except OSError as error:
        raise StateError(f"{error.filename or folder}: {error.strerror}") from error
    return manifest


def _compare(folder: Path, manifest: Manifest, snapshot: Snapshot) -> None:
    """Raise DamagedError unless the folder holds what the manifest says, all of it and nothing else."""
    if not any(entry.path == "state" and entry.kind == "folder" for entry in manifest.entries):
        raise DamagedError(f"{snapshot.short}: has no state in it")
    known = {entry.path for entry in manifest.entries} | {NAME}
    for base, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = (Path(base) / name).relative_to(folder)
            # A parent of what backup.include names is made on the way, and is no entry of its own.
            if str(path) not in known and path.parts[0] != "include":
                raise DamagedError(f"{snapshot.short}: {path} is in the backup and not in its manifest")
    for entry in manifest.entries:
        if not _is(folder / entry.path, entry):
            raise DamagedError(f"{snapshot.short}: {entry.path} is not what was backed up; use another backup")


def _is(path: Path, entry: Entry) -> bool:
    try:
        status = path.lstat()
        if entry.kind == "folder":
            return stat.S_ISDIR(status.st_mode)
        if entry.kind == "link":
            return hashlib.sha256(os.fsencode(path.readlink())).hexdigest() == entry.sha256
        if not stat.S_ISREG(status.st_mode) or status.st_size != entry.size:
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == entry.sha256
    except OSError:
        return False


def _own(path: Path, entry: Entry) -> None:
    """Give a file its owner and mode back; only root can do the former."""
    if os.geteuid() == 0:
        os.chown(path, _user(entry.user), _group(entry.group), follow_symlinks=False)
    if entry.kind != "link":
        path.chmod(entry.mode)


def _user(name: str) -> int:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return int(name) if name.isascii() and name.isdigit() else 0


def _group(name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return int(name) if name.isascii() and name.isdigit() else 0


def _what_is_there(settings: Settings) -> Path | None:
    """Return something of the state that a restore would replace, or None."""
    state = settings.paths.state
    for path in sorted(state.rglob("*")) if state.is_dir() else []:
        below = path.relative_to(state)
        ours = str(below) in _OURS or below.parts[0] in _OURS or settings.paths.models in path.parents
        if not ours and not path.is_dir():
            return path
    return None


def _keep_config(swap: Swap, config_dir: Path, *, force: bool) -> None:
    """Keep the settings that the restore is about to replace."""
    fresh = swap.new / "config"
    for path in sorted(fresh.rglob("*")) if fresh.is_dir() else []:
        current = config_dir / path.relative_to(fresh)
        try:
            if not current.is_file() or current.read_bytes() == path.read_bytes():
                continue
            if not force:
                raise RefusedError(f"{current}: {_WOULD_BE_REPLACED}")
            copy = swap.old / "config" / path.relative_to(fresh)
            copy.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            copy.write_bytes(current.read_bytes())
            copy.chmod(0o600)
        except OSError as error:
            raise StateError(f"{current}: can't be kept: {error.strerror}") from error


def _nobody_uses(state: Path) -> None:
    """Raise RefusedError when a process has a file of the state open: it would go on writing to the old one."""
    for process in psutil.process_iter(["pid", "name"]):
        if process.pid == os.getpid():
            continue
        with contextlib.suppress(psutil.Error, OSError):
            used = [Path(process.cwd()), *(Path(file.path) for file in process.open_files())]
            if any(path == state or state in path.parents for path in used):
                raise RefusedError(
                    f"{process.info['name']} (process {process.pid}) uses {state}; stop it first: "
                    "systemctl stop rouse-hub rouse-node"
                )
