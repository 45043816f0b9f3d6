"""Checksums and their signature, as systemd-sysupdate verifies them: `SHA256SUMS` and a detached `SHA256SUMS.gpg`."""

import hashlib
import re
from pathlib import Path

from image_build.errors import SigningError, StepError
from image_build.process import Runner

CHECKSUMS = "SHA256SUMS"
SIGNATURE = "SHA256SUMS.gpg"

_LINE = re.compile(r"(?P<digest>[0-9a-f]{64}) [ *](?P<name>[^/\0]+)")


def write_checksums(folder: Path) -> Path:
    """Write the checksums of all files in a folder; an older signature is deleted, as it is for something else."""
    (folder / SIGNATURE).unlink(missing_ok=True)
    lines = [
        f"{_digest(path)}  {path.name}\n"
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name not in {CHECKSUMS, SIGNATURE}
    ]
    (folder / CHECKSUMS).write_text("".join(lines))
    return folder / CHECKSUMS


def verify_checksums(folder: Path) -> list[str]:
    """Compare a folder's files with its checksums; return their names.

    Raises:
        SigningError: a file is missing, was changed, or the list can't be read.
    """
    try:
        lines = (folder / CHECKSUMS).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SigningError(f"{folder} has no readable {CHECKSUMS}: {error}") from error
    names, wrong = [], []
    for number, line in enumerate(lines, 1):
        found = _LINE.fullmatch(line)
        if found is None or found["name"] in {".", ".."}:
            raise SigningError(
                f"{folder / CHECKSUMS}, line {number}: this is no checksum and file name: {line[:100]!r}"
            )
        path = folder / found["name"]
        if not path.is_file():
            wrong.append(f"{path.name} is missing")
        elif _digest(path) != found["digest"]:
            wrong.append(f"{path.name} is not what was published")
        names.append(path.name)
    if wrong or not names:
        raise SigningError(f"{folder}: {'; '.join(wrong) or 'the list of checksums is empty'}")
    return names


def sign(folder: Path, *, runner: Runner, key: str, home: Path | None) -> Path:
    """Sign a folder's checksums with GnuPG.

    Args:
        folder: what is published.
        runner: runs gpg.
        key: fingerprint or address of the secret key.
        home: GnuPG's folder; the user's own if not given.

    Raises:
        SigningError: a file is not what its checksum says, or gpg can't sign with this key.
    """
    verify_checksums(folder)
    target = folder / SIGNATURE
    target.unlink(missing_ok=True)
    try:
        runner.run(
            [*_gpg(home), "--local-user", key, "--detach-sign", "--output", str(target), str(folder / CHECKSUMS)]
        )
    except StepError as error:
        raise SigningError(f"the checksums can't be signed with the key {key!r}: {error}") from error
    return target


def export_key(target: Path, *, runner: Runner, key: str, home: Path | None) -> None:
    """Write the public key that belongs to a signature, for `rouse image build --verify-key`.

    Raises:
        SigningError: there is no such key.
    """
    try:
        runner.run([*_gpg(home), "--yes", "--output", str(target), "--export", key])
    except StepError as error:
        raise SigningError(f"there is no key {key!r}: {error}") from error
    if not target.is_file():
        raise SigningError(f"there is no key {key!r}")


def verify(folder: Path, *, runner: Runner, keys: Path) -> list[str]:
    """Verify the signature, then every file; return the files' names.

    Args:
        folder: what was published.
        runner: runs gpgv.
        keys: file of the public keys that are trusted, not ASCII-armoured.

    Raises:
        SigningError: the signature is missing or by another key, or a file is not what was signed.
    """
    signature = folder / SIGNATURE
    if not signature.is_file():
        raise SigningError(f"{folder} is not signed: there is no {SIGNATURE}")
    if not keys.is_file():
        raise SigningError(f"there is no file of public keys at {keys}")
    try:
        # A name without a slash would be looked for in GnuPG's own folder.
        runner.run(["gpgv", "--keyring", str(keys.resolve()), str(signature), str(folder / CHECKSUMS)])
    except StepError as error:
        raise SigningError(f"the signature of {folder} is wrong, or by a key that is not in {keys}: {error}") from error
    return verify_checksums(folder)


def _gpg(home: Path | None) -> list[str]:
    return ["gpg", "--batch", "--no-tty", *(["--homedir", str(home)] if home is not None else [])]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
