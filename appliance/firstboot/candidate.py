"""Reads the file that a person wrote, and says all that is wrong with it."""

from dataclasses import dataclass
from pathlib import Path

from appliance.firstboot.errors import RefusedFileError
from appliance.firstboot.kept_secrets import MissingSecretError, with_secrets
from appliance.settings import InvalidSettingsError, Settings, load
from appliance.settings.errors import Problem
from appliance.settings.source import Source

FILE_NAME = "rouse.toml"
LARGEST_BYTES = 256 * 1024
"""A settings file is a few hundred bytes; what is larger was put there by mistake."""

_OFTEN_SAVED_AS = ("rouse.toml.txt", "rouse.txt", "rouse.toml.toml", "rouse.tml", "rouse.toml.rtf", "rouse.rtf")
_OTHER_FORMATS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"{\\rtf": "RTF", b"PK\x03\x04": "a document"}
"""How files begin that an editor saved as something else than plain text."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file that can be used."""

    content: bytes
    """What was written, with the secrets in their places."""
    settings: Settings


def find_file(folder: Path) -> Path | None:
    """Return the file in a folder, or None if there is none.

    Raises:
        RefusedFileError: there is only one under a name that editors give it by mistake.
    """
    path = folder / FILE_NAME
    if path.exists():
        return path
    for name in _OFTEN_SAVED_AS:
        if (folder / name).exists():
            text = f"the file is called {name}: rename it to {FILE_NAME} (Windows may hide the end of its name)"
            raise RefusedFileError([Problem(Source("first-boot", folder / name), None, text)])
    return None


def read_candidate(path: Path, *, config_dir: Path, hostname: str, kept: Path | None = None) -> Candidate:
    """Read and check a file.

    Args:
        path: the file.
        config_dir: folder with the groups and hosts that it stands above; it may be missing.
        hostname: names the machine's file in `hosts/`.
        kept: file with the secrets that were moved out of it.

    Raises:
        RefusedFileError: it can't be used.
    """
    content = _plain_text(path)
    try:
        content = with_secrets(content, kept)
        loaded = load(config_dir, {}, hostname, first_boot=(path, content))
    except MissingSecretError as error:
        source = Source("first-boot", path, error.line)
        raise RefusedFileError([Problem(source, error.key, str(error))]) from None
    except InvalidSettingsError as error:
        raise RefusedFileError(error.problems) from None
    return Candidate(content, loaded.settings)


def _plain_text(path: Path) -> bytes:
    """Return what the file holds, if it can be text at all."""
    source = Source("first-boot", path)
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_BYTES + 1)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise RefusedFileError([Problem(source, None, f"cannot be read: {reason}")]) from error
    if len(content) > LARGEST_BYTES:
        text = f"is larger than {LARGEST_BYTES} bytes; that is no settings file"
        raise RefusedFileError([Problem(source, None, text)])
    for mark, name in _OTHER_FORMATS.items():
        if content.startswith(mark):
            text = f"is saved as {name}: save it as plain text with the encoding UTF-8"
            raise RefusedFileError([Problem(source, None, text)])
    return content
