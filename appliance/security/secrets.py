"""Secrets in files: made once, never in a log or on a command line.

Their owner alone reads them, or those whom their folder is shared with; see `durable_files`.
"""

import contextlib
import os
import secrets
import tempfile
from pathlib import Path

from appliance import durable_files


class SecretError(Exception):
    """A secret can't be read or made; the message names the file and what to do."""


def read_secret(path: Path) -> str:
    """Return the first line of a secret file, without white space around it.

    Raises:
        SecretError: the file can't be read or is empty.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SecretError(f"{path}: can't be read as a secret: {error}") from error
    secret = lines[0].strip() if lines else ""
    if not secret:
        raise SecretError(f"{path}: is empty; put the secret on its first line")
    return secret


def ensure_secret(path: Path) -> str:
    """Return the secret in `path`, making a random one of 256 bits if there is none.

    Two processes that start at the same time agree on one secret: the file appears whole, and the
    first one wins.

    Raises:
        SecretError: the file can't be read or written.
    """
    if not path.exists():
        try:
            durable_files.make_folder(path.parent)
            _write_first(path, secrets.token_urlsafe(32))
        except OSError as error:
            raise SecretError(f"{path}: can't be written: {error}") from error
    return read_secret(path)


def _write_first(path: Path, secret: str) -> None:
    """Write a file for those whom its folder is for, whole or not at all, unless it has come to exist meanwhile."""
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(f"{secret}\n")
            file.flush()
            durable_files.adopt(descriptor, path.parent)
            os.fchmod(descriptor, durable_files.private_mode(path.parent))
            os.fsync(descriptor)
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        Path(draft).unlink()
