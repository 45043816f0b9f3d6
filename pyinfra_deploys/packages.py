"""Debian packages: installed on Debian, only looked for on an image."""

from collections.abc import Generator, Sequence

from pyinfra import host
from pyinfra.api import FactBase, StringCommand, operation

from pyinfra_deploys.errors import MissingPackagesError
from pyinfra_deploys.target import is_image

_APT = (
    "DEBIAN_FRONTEND=noninteractive",
    "apt-get",
    "-q",
    "-o",
    "Dpkg::Options::=--force-confold",
    "-o",
    "DPkg::Lock::Timeout=120",
)


class InstalledPackages(FactBase[frozenset[str]]):
    """Which of these packages are installed."""

    def command(self, names: Sequence[str]) -> str:
        """Return the command, which also succeeds where none is."""
        return f"dpkg-query -W -f '${{Package}} ${{db:Status-Status}}\\n' {' '.join(names)} 2>/dev/null || true"

    def process(self, output: list[str]) -> frozenset[str]:
        """Return their names."""
        return frozenset(line.split()[0] for line in output if line.endswith(" installed"))

    @staticmethod
    def default() -> frozenset[str]:
        """Return what no output means."""
        return frozenset()


@operation()
def present(names: Sequence[str]) -> Generator[StringCommand]:
    """Have packages installed; apt's lists are fetched only when some are missing."""
    there = host.get_fact(InstalledPackages, names=tuple(names))
    if missing := [name for name in names if name not in there]:
        yield StringCommand(*_APT, "update")
        yield StringCommand(*_APT, "install", "-y", "--no-install-recommends", *missing)


def installed(*names: str) -> None:
    """Have these packages.

    Raises:
        MissingPackagesError: an image lacks some.
    """
    if not is_image():
        present(name=f"Install {', '.join(names)}", names=names)
        return
    there = host.get_fact(InstalledPackages, names=names)
    if missing := [name for name in names if name not in there]:
        raise MissingPackagesError(missing)
