"""Operations on files: content, owner and mode together, so that a secret is nobody else's at any moment."""

import difflib
import hashlib
import posixpath
from collections.abc import Generator
from dataclasses import dataclass
from io import BytesIO
from typing import override

from pyinfra import host
from pyinfra.api import FactBase, FileUploadCommand, QuoteString, StringCommand, operation
from pyinfra.api.command import PyinfraCommand
from pyinfra.facts.files import Directory, FileContents

from pyinfra_deploys.errors import DeployError


@dataclass(frozen=True, slots=True)
class Seen:
    """What there is at a path.

    Attributes:
        digest: SHA-256 of the content; None where it is no ordinary file.
        mode: its permissions.
        owner: its owner's name.
        group: its group's name.
    """

    digest: str | None
    mode: int = 0
    owner: str = ""
    group: str = ""


class FileSeen(FactBase[Seen | None]):
    """All that matters about a file, in one go; None where there is nothing."""

    @override
    def command(self, path: str) -> StringCommand:
        script = (
            'if [ -f "$1" ] && [ ! -L "$1" ]; then stat -c "%a %U %G" -- "$1"; sha256sum < "$1"; '
            'elif [ -e "$1" ] || [ -L "$1" ]; then echo other; fi'
        )
        return StringCommand("sh", "-c", QuoteString(script), "seen", QuoteString(path))

    @override
    def process(self, output: list[str]) -> Seen:
        if output[0] == "other":
            return Seen(None)
        mode, owner, group = output[0].split(" ")
        return Seen(output[1].split(" ")[0], int(mode, 8), owner, group)


@operation()
def written(
    *, content: str | bytes, dest: str, mode: str, owner: str, group: str, secret: bool, check: str | None
) -> Generator[PyinfraCommand]:
    """Have a file with this content, owner and mode."""
    raw = content.encode() if isinstance(content, str) else content
    found = host.get_fact(FileSeen, path=dest)
    if found is not None and found.digest is None:
        raise DeployError(f"{dest} is no ordinary file: look what it is, and move it away")
    same = found is not None and found.digest == hashlib.sha256(raw).hexdigest()
    as_wanted = found is not None and (found.owner, found.group, found.mode) == (owner, group, int(mode, 8))
    if same:
        if not as_wanted:
            yield from _handed_over(dest, owner, group, mode)
        return
    _note_difference(content, dest, secret=secret, new=found is None)
    folder = posixpath.dirname(dest)
    if found is None and not host.get_fact(Directory, path=folder):
        yield StringCommand("mkdir", "-p", "-m", "755", QuoteString(folder))
    if check is None:
        if found is not None and not as_wanted:
            # Neither who might read the old content nor who may read the new one sees the other.
            yield StringCommand("chmod", "600", QuoteString(dest))
        yield FileUploadCommand(BytesIO(raw), dest)
        if not as_wanted:
            yield from _handed_over(dest, owner, group, mode)
        return
    new = f"{dest}.new"
    yield FileUploadCommand(BytesIO(raw), new)
    yield from _handed_over(new, owner, group, mode)
    yield StringCommand(check.format(new=new), "||", "{", "rm", "-f", QuoteString(new), ";", "exit", "1;", "}")
    yield StringCommand("mv", "-f", "-T", QuoteString(new), QuoteString(dest))


def _handed_over(path: str, owner: str, group: str, mode: str) -> Generator[StringCommand]:
    yield StringCommand("chown", f"{owner}:{group}", QuoteString(path))
    yield StringCommand("chmod", mode, QuoteString(path))


def _note_difference(content: str | bytes, dest: str, *, secret: bool, new: bool) -> None:
    if secret:
        difference = f"{dest}: other content, which is secret\n"
    elif isinstance(content, bytes):
        difference = f"{dest}: other content, which is no text\n"
    else:
        before = [] if new else [f"{line}\n" for line in host.get_fact(FileContents, path=dest) or ()]
        after = content.splitlines(keepends=True)
        difference = "".join(difflib.unified_diff(before, after, "/dev/null" if new else dest, dest))
    host.connector_data.setdefault("differences", {})[host.current_op_hash] = difference


@operation()
def removed(path: str) -> Generator[PyinfraCommand]:
    """Have no such file."""
    if host.get_fact(FileSeen, path=path) is not None:
        yield StringCommand("rm", "-f", QuoteString(path))
