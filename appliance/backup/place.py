"""What all of backup's work shares: one at a time, the password, the repository and the record of this machine."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from appliance.backup.contents import OWN
from appliance.backup.errors import BusyError, NotSetUpError, PasswordError, StateError
from appliance.backup.record import RecordBook
from appliance.backup.restic import Restic, restic_for
from appliance.security.secrets import SecretError, ensure_secret, read_secret
from appliance.settings.model import Settings

PASSWORD_NAME = "backup.password"  # noqa: S105 - a file's name
"""In the folder of all secrets, which is root's, as backups are: no service may read it."""


@dataclass(frozen=True, slots=True)
class Place:
    """The folder that backups use of the state folder, while this process has it for itself."""

    folder: Path
    restic: Restic
    book: RecordBook

    @property
    def staging(self) -> Path:
        """Where the consistent copy is made. restic finds what it knows by this path, so it stays the same."""
        return self.folder / "staging"


def folder_of(settings: Settings) -> Path:
    """Return the folder that backups use."""
    return settings.paths.state / OWN


def book_of(settings: Settings) -> RecordBook:
    """Return the record of this machine's backups."""
    return RecordBook(folder_of(settings), metrics=settings.monitoring.textfiles)


def password_path(settings: Settings) -> Path:
    """Return the file that holds the repository's password."""
    return settings.backup.password_file or settings.paths.state / "secrets" / PASSWORD_NAME


@contextmanager
def opened(settings: Settings, *, new_password: bool = False, program: str = "restic") -> Iterator[Place]:
    """Be the only one on this machine who works with backups.

    Args:
        settings: the effective settings.
        new_password: whether a password may be made when there is none.
        program: restic.

    Raises:
        BackupError: another one is at it, nothing is set up, or a file can't be used.
    """
    if settings.backup.repository is None:
        raise NotSetUpError("backup.repository is not set: where should backups go?")
    folder = folder_of(settings)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise StateError(f"{folder}: can't be written: {error.strerror}; run this as root") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError("another backup, verification or restore is at work on this machine") from None
        path = password_path(settings)
        try:
            if new_password:
                ensure_secret(path)
            else:
                read_secret(path)
        except SecretError as error:
            if path.exists() or new_password:
                raise StateError(str(error)) from error
            raise PasswordError(f"{path}: is not there; give the password that you kept by --password-file") from error
        restic = restic_for(
            settings.backup, password_file=path, cache=folder / "cache", hold=(descriptor,), program=program
        )
        yield Place(folder, restic, book_of(settings))
    finally:
        os.close(descriptor)
