"""Where this machine's state is backed up to, and how long that is kept."""

import re
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from appliance.settings.section import Section, conflict

_FORMS = "expected a folder such as /srv/backup, sftp://user@host[:port]/folder, or rest:https://host[:port]/path/"
_CLOCK = re.compile(r"([01]\d|2[0-3]):[0-5]\d")
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

Kept = Annotated[int, Field(ge=0, le=10_000)]


class BackupSettings(Section):
    """Encrypted backups of the machine's state by restic; see docs/backup.md. Without a repository there are none."""

    repository: str | None = None
    """Where to: a folder (`/srv/backup`), `sftp://user@host[:port]/folder` or `rest:https://host[:port]/path/`. It
    must be on another disk than the state, or it is lost with it. Machines may share one."""
    password_file: Path | None = None
    """File whose first line encrypts the repository; `secrets/backup.password` of the state folder when not set, which
    is made at first use. Keep a copy elsewhere: without it no backup can be read."""
    rest_username: str | None = None
    """User at the REST server."""
    rest_password_file: Path | None = None
    """File whose first line is the password at the REST server."""
    ca_file: Path | None = None
    """CA certificates (PEM) that the REST server's certificate is checked against; the system's when not set."""
    ssh_key_file: Path | None = None
    """Private key for SFTP; without a passphrase, as nobody is there to type it."""
    ssh_known_hosts_file: Path | None = None
    """Host keys that SFTP accepts. An unknown host is never accepted, because it would get a copy of everything."""
    include: tuple[Path, ...] = ()
    """Further files and folders, besides the state and the settings; absolute."""
    at: str = "03:30"
    """When, each day, on this machine's clock. A machine that sleeps then does it when it is awake again."""
    keep_daily: Kept = 7
    """For how many of the last days one backup is kept. A week is how long a mistake usually goes unnoticed."""
    keep_weekly: Kept = 5
    """For how many of the last weeks one is kept."""
    keep_monthly: Kept = 12
    """For how many of the last months one is kept."""
    verify_parts: Annotated[int, Field(ge=1, le=100)] = 5
    """Each weekly verification reads one of so many parts of the repository, in turn, so that all of it has been read
    after that many weeks. 1 reads everything each time."""

    @field_validator("repository")
    @classmethod
    def _check_repository(cls, repository: str | None) -> str | None:
        if repository is None or _is_folder(repository) or _is_sftp(repository) or _is_rest(repository):
            return repository
        raise ValueError(_FORMS)

    @field_validator("at")
    @classmethod
    def _check_at(cls, at: str) -> str:
        if _CLOCK.fullmatch(at) is None:
            raise ValueError("expected a time of day such as 03:30")
        return at

    @field_validator("include")
    @classmethod
    def _check_include(cls, include: tuple[Path, ...]) -> tuple[Path, ...]:
        for path in include:
            if not path.is_absolute() or ".." in path.parts:
                raise ValueError(f"{path}: expected an absolute path")
        return include

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if (self.rest_username is None) != (self.rest_password_file is None):
            present = "rest_password_file" if self.rest_username is None else "rest_username"
            raise conflict(present, "rest_username and rest_password_file go together")
        if not (self.keep_daily or self.keep_weekly or self.keep_monthly):
            raise conflict(
                "keep_daily", "keep_daily, keep_weekly and keep_monthly can't all be 0: nothing would be kept"
            )
        return self


def _is_folder(text: str) -> bool:
    return text.startswith("/") and ".." not in Path(text).parts and "\n" not in text


def _is_sftp(text: str) -> bool:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return False
    # The names go on ssh's command line: nothing that could be taken for an option or quoted.
    names = [parts.hostname or "", *([parts.username] if parts.username is not None else [])]
    return (
        parts.scheme == "sftp"
        and all(map(_PLAIN.fullmatch, names))
        and parts.password is None
        and port != 0
        and len(parts.path) > 1
        and not parts.query
        and not parts.fragment
    )


def _is_rest(text: str) -> bool:
    if not text.startswith(("rest:https://", "rest:http://")):
        return False
    try:
        parts = urlsplit(text.removeprefix("rest:"))
        port = parts.port
    except ValueError:
        return False
    return bool(parts.hostname) and parts.username is None and port != 0 and not parts.query and not parts.fragment
