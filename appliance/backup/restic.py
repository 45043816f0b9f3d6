"""One call of restic: its environment, its progress, and what its ways of failing mean.

https://restic.readthedocs.io/en/stable/075_scripting.html. Exit codes that tell the failures apart came with 0.17;
Debian bookworm has 0.14, whose words are looked at instead. No secret is ever an argument.
"""

import json
import os
import re
import shlex
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, urlsplit

from appliance.backup.errors import BackupError, BusyError, MissingError, PasswordError, RepositoryError
from appliance.security.secrets import SecretError, read_secret
from appliance.settings.backup import BackupSettings

_LARGEST_ERROR = 64 << 10
_LARGEST_LINE = 64 << 20

_PATIENCE_SECONDS = 30.0
_RETRIED = re.compile(r"returned error, retrying after \S+: (.*)")

type OnMessage = Callable[[Mapping[str, Any]], None]

_MEANINGS: tuple[tuple[int, re.Pattern[str], type[BackupError], str], ...] = (
    (
        10,
        # It asks whether there is a repository whatever went wrong; the reason comes first.
        re.compile(
            "(no such file|does not exist|404).*Is there a repository|repository does not exist",
            re.IGNORECASE | re.DOTALL,
        ),
        MissingError,
        "there is no repository. Is its disk mounted? `rouse backup init` makes a new one",
    ),
    (11, re.compile("already locked", re.IGNORECASE), BusyError, "another machine is at work in it; try again later"),
    (12, re.compile("wrong password or no key found", re.IGNORECASE), PasswordError, "the password does not open it"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Restic:
    """How to call restic for one repository."""

    repository: str
    """As restic writes it, without user and password."""
    environment: Mapping[str, str] = field(repr=False)
    options: tuple[str, ...] = ()
    hold: tuple[int, ...] = ()
    """File descriptors that restic keeps open: a lock lasts as long as it runs, also when we are killed."""
    program: str = "restic"

    def run(self, *arguments: str, folder: Path | None = None, on_message: OnMessage | None = None) -> str:
        """Run a command, and return what it writes. What a killed run left locked is unlocked.

        Args:
            arguments: the command and its options.
            folder: where it runs.
            on_message: gets each line of JSON as it comes; nothing is returned then.

        Raises:
            BackupError: it fails, or is not there.
        """
        try:
            return self._run(*arguments, folder=folder, on_message=on_message)
        except BusyError:
            # This removes locks of processes that are gone; those of others that are alive stay.
            self._run("unlock")
            return self._run(*arguments, folder=folder, on_message=on_message)

    def reach(self) -> None:
        """Find out whether the repository is there and the password opens it.

        Newer versions of restic try for a quarter of an hour to reach a place that is not there.

        Raises:
            BackupError: it is not.
        """
        self._run("cat", "config", patience=_PATIENCE_SECONDS)

    def _run(
        self,
        *arguments: str,
        folder: Path | None = None,
        on_message: OnMessage | None = None,
        patience: float | None = None,
    ) -> str:
        with tempfile.TemporaryFile() as errors:
            try:
                process = subprocess.Popen(  # noqa: S603 - the settings are checked, and no shell is in between
                    [self.program, *self.options, *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    cwd=folder,
                    env=dict(self.environment),
                    pass_fds=self.hold,
                )
            except OSError as error:
                raise RepositoryError(
                    f"{self.program}: can't be started: {error.strerror}; is it installed?"
                ) from error
            timer = threading.Timer(patience, process.terminate) if patience is not None else None
            with process:
                try:
                    if timer is not None:
                        timer.start()
                    output = _read(process.stdout, on_message)
                except BaseException:
                    process.terminate()
                    raise
                finally:
                    if timer is not None:
                        timer.cancel()
            if process.returncode:
                raise self._failure(process.returncode, _tail(errors), output)
        return output

    def messages(self, *arguments: str, folder: Path | None = None) -> list[Any]:
        """Run a command that writes one JSON document, an array, and return it.

        Raises:
            BackupError: it fails.
        """
        text = self.run(*arguments, "--json", folder=folder)
        try:
            found = json.loads(text)
        except json.JSONDecodeError:
            raise RepositoryError(f"{self.repository}: restic {arguments[0]} answers with no JSON") from None
        return found if isinstance(found, list) else []

    def _failure(self, code: int, errors: str, output: str) -> BackupError:
        for number, words, kind, meaning in _MEANINGS:
            if code == number or words.search(errors):
                return kind(f"{self.repository}: {meaning}")
        lines = _RETRIED.findall(errors)[-1:] or [line for line in _sentences(errors or output) if line]
        return RepositoryError(f"{self.repository}: restic says: {'; '.join(lines[-3:]) or f'exit code {code}'}")


def restic_for(
    settings: BackupSettings, *, password_file: Path, cache: Path, hold: tuple[int, ...] = (), program: str = "restic"
) -> Restic:
    """Return how to call restic with these settings.

    Raises:
        RepositoryError: a secret that the settings name can't be read.
    """
    repository = settings.repository or ""
    options = ["--cache-dir", str(cache)]
    if settings.ca_file is not None:
        options += ["--cacert", str(settings.ca_file)]
    if repository.startswith("sftp://"):
        options += ["-o", f"sftp.command={_ssh_command(settings, repository)}"]
    environment = {
        # A folder on the way to the home directory is asked for even where nothing is read from it.
        "HOME": str(cache),
        "LANG": "C.UTF-8",
        "PATH": os.environ.get("PATH", os.defpath),
        "RESTIC_PASSWORD_FILE": str(password_file),
        "RESTIC_PROGRESS_FPS": "2",
        "RESTIC_REPOSITORY": _with_account(settings, repository),
        "TMPDIR": tempfile.gettempdir(),
    }
    return Restic(repository=repository, environment=environment, options=tuple(options), hold=hold, program=program)


def _with_account(settings: BackupSettings, repository: str) -> str:
    """Return the URL with user and password, which restic takes in the environment."""
    if settings.rest_username is None or settings.rest_password_file is None:
        return repository
    try:
        password = read_secret(settings.rest_password_file)
    except SecretError as error:
        raise RepositoryError(str(error)) from error
    scheme, rest = repository.split("://", 1)
    return f"{scheme}://{quote(settings.rest_username, safe='')}:{quote(password, safe='')}@{rest}"


def _ssh_command(settings: BackupSettings, repository: str) -> str:
    parts = urlsplit(repository)
    command = ["ssh", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "ConnectTimeout=20"]
    if settings.ssh_key_file is not None:
        command += ["-o", "IdentitiesOnly=yes", "-i", str(settings.ssh_key_file)]
    if settings.ssh_known_hosts_file is not None:
        command += ["-o", f"UserKnownHostsFile={settings.ssh_known_hosts_file}"]
    if parts.port is not None:
        command += ["-p", str(parts.port)]
    if parts.username is not None:
        command += ["-l", parts.username]
    return shlex.join([*command, parts.hostname or "", "-s", "sftp"])


def _read(stream: IO[bytes] | None, on_message: OnMessage | None) -> str:
    if stream is None:
        return ""
    if on_message is None:
        return stream.read().decode(errors="replace")
    kept = b""
    while line := stream.readline(_LARGEST_LINE):
        kept = line
        try:
            message = json.loads(line)
        except ValueError:
            continue
        if isinstance(message, dict):
            on_message(message)
    return kept.decode(errors="replace")


def _tail(errors: IO[bytes]) -> str:
    errors.seek(max(0, errors.seek(0, os.SEEK_END) - _LARGEST_ERROR))
    return errors.read().decode(errors="replace")


def _sentences(text: str) -> Iterator[str]:
    """Yield the lines of an error, of which newer versions make JSON."""
    for line in text.splitlines():
        try:
            message = json.loads(line)
        except ValueError:
            yield line.strip()
            continue
        found = message.get("message") or message.get("error", {}) if isinstance(message, dict) else line
        yield str(found.get("message", "") if isinstance(found, dict) else found).strip()
