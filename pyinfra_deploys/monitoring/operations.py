"""Operations on what monitoring needs besides files."""

from collections.abc import Generator
from typing import override

from pyinfra import host
from pyinfra.api import FactBase, QuoteString, StringCommand, operation
from pyinfra.facts.files import File

_MAKE = """
set -eu
umask 077
mkdir -p -m 700 -- "$(dirname -- "$1")"
new=$(mktemp -- "$1.XXXXXXXX")
head -c 24 /dev/urandom | base64 | tr '+/' '-_' > "$new"
sync -- "$new"
mv -n -T -- "$new" "$1"
rm -f -- "$new"
"""


class FolderExists(FactBase[bool]):
    """Whether there is a folder."""

    @override
    def command(self, path: str) -> StringCommand:
        return StringCommand("if [ -d", QuoteString(path), "]; then echo there; fi")

    @override
    def process(self, output: list[str]) -> bool:
        return output[:1] == ["there"]

    @override
    @staticmethod
    def default() -> bool:
        return False


@operation()
def folder_of_metrics(folder: str) -> Generator[StringCommand]:
    """Have the folder of text files, which root alone writes and everybody reads."""
    if not host.get_fact(FolderExists, path=folder):
        yield StringCommand("install", "-d", "-m", "755", QuoteString(folder))


@operation()
def password_made(path: str) -> Generator[StringCommand]:
    """Have a password, made there, which root alone reads."""
    if not host.get_fact(File, path=path):
        yield StringCommand("sh", "-c", QuoteString(_MAKE), "password", QuoteString(path))
