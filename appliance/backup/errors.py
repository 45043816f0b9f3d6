"""Errors of backup and restore.

BackupError
├── NotSetUpError     the settings name no repository: set backup.repository
├── BusyError         another backup or restore is at it: wait for it
├── PasswordError     the password does not open the repository: give the right one
├── MissingError      there is no such repository or backup: look where it should be
├── RepositoryError   restic or the repository's place does not answer as it should: look at what it says
├── DamagedError      what was read is not what was written: use another backup, and look at the disk
├── RefusedError      what was asked for could lose something: ask differently, or say that you mean it
└── StateError        the machine's own files can't be read or written: look at the disk, or run as root
"""


class BackupError(Exception):
    """Root of the package's errors; the text is for the user and holds no secret."""


class NotSetUpError(BackupError):
    """The settings name no repository."""


class BusyError(BackupError):
    """Another backup or restore is at it."""


class PasswordError(BackupError):
    """The password does not open the repository."""


class MissingError(BackupError):
    """There is no such repository, or no such backup in it."""


class RepositoryError(BackupError):
    """Restic, or the repository's place, does not answer as it should."""


class DamagedError(BackupError):
    """What was read is not what was written."""


class RefusedError(BackupError):
    """What was asked for could lose something."""


class StateError(BackupError):
    """The machine's own files can't be read or written."""
