"""Operations of this part."""

import hashlib
import shlex
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import override

from pyinfra.api import FactBase, FileUploadCommand, QuoteString, StringCommand, operation
from pyinfra.api.command import PyinfraCommand

from pyinfra_deploys.appliance.layout import PROGRAM

_BLOCK = 1 << 22


class FileSizes(FactBase[Mapping[str, int]]):
    """The sizes of those files that there are, by path."""

    @override
    def command(self, paths: Sequence[str]) -> str:
        return f"stat -L -c '%s %n' {shlex.join(paths)} 2>/dev/null || true"

    @override
    def process(self, output: list[str]) -> dict[str, int]:
        found = (line.split(" ", 1) for line in output)
        return {path: int(size) for size, path in found}

    @override
    @staticmethod
    def default() -> Mapping[str, int]:
        return {}


class FreeBytes(FactBase[int]):
    """The room on the disk that a folder is on, or will be."""

    @override
    def command(self, folder: str) -> str:
        return (
            f'folder=\'{folder}\'; while [ ! -d "$folder" ]; do folder=$(dirname "$folder"); done; '
            'df -B1 --output=avail "$folder" | tail -n 1'
        )

    @override
    def process(self, output: list[str]) -> int:
        return int(output[0])


@operation()
def copied(source: str, dest: str) -> Generator[PyinfraCommand]:
    """Have a file of this machine there; it gets its name once its checksum is right."""
    with Path(source).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    new = f"{dest}.copy"
    yield StringCommand("install", "-d", "-m", "755", QuoteString(dest.rpartition("/")[0]))
    yield FileUploadCommand(source, new)
    yield StringCommand("chown", "root:root", QuoteString(new))
    yield StringCommand("chmod", "644", QuoteString(new))
    told = shlex.quote(f"{digest}  {new}")
    yield StringCommand(f"echo {told} | sha256sum --check --quiet || {{ rm -f {shlex.quote(new)}; exit 1; }}")
    yield StringCommand("mv", "-f", "-T", QuoteString(new), QuoteString(dest))


@operation()
def added(model: str) -> Generator[StringCommand]:
    """Have a model of the catalogue, verified and recorded; what was copied is not downloaded."""
    yield StringCommand(PROGRAM, "model", "add", model)
