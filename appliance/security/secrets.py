"""Secrets in files: made once, readable by their owner only, never in a log or on a command line."""

import contextlib
import os
import secrets
import tempfile
from pathlib import Path


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
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write_first(path, secrets.token_urlsafe(32))
        except OSError as error:
            raise SecretError(f"{path}: can't be written: {error}") from error
    return read_secret(path)


def _write_first(path: Path, secret: str) -> None:
    """Write a file for its owner only, whole or not at all, unless it has come to exist meanwhile."""
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(f"{secret}\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        Path(draft).unlink()
