"""Operations on Frigate's secrets."""

from collections.abc import Generator, Sequence
from typing import override

from pyinfra import host
from pyinfra.api import FactBase, QuoteString, StringCommand, operation


class Names(FactBase[Sequence[str]]):
    """The names of the files in a folder."""

    @override
    def command(self, folder: str) -> StringCommand:
        return StringCommand("ls -A", QuoteString(folder), "2>/dev/null || true")

    @override
    def process(self, output: list[str]) -> list[str]:
        return output

    @override
    @staticmethod
    def default() -> Sequence[str]:
        return ()


@operation()
def only_these(folder: str, names: Sequence[str]) -> Generator[StringCommand]:
    """Have no files but these in a folder: a camera that is gone leaves no password."""
    for name in host.get_fact(Names, folder=folder):
        if name not in names:
            yield StringCommand("rm", "-f", "--", QuoteString(f"{folder}/{name}"))
