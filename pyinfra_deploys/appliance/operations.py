"""Operations of this part."""

from collections.abc import Generator, Mapping, Sequence
from typing import Any, override

from pyinfra import host
from pyinfra.api import FactBase, StringCommand, operation

from pyinfra_deploys.appliance.layout import OwnedFolder
from pyinfra_deploys.systemd import did_change

_UNIT = "rouse-console@"


class FolderOwners(FactBase[Mapping[str, tuple[str, str, str]]]):
    """Mode, owner and group of folders, by path."""

    @override
    def command(self, paths: Sequence[str]) -> str:
        return f"stat -c '%n %a %U %G' {' '.join(paths)} 2>/dev/null || true"

    @override
    def process(self, output: list[str]) -> dict[str, tuple[str, str, str]]:
        found = (line.rsplit(" ", 3) for line in output)
        return {path: (mode, owner, group) for path, mode, owner, group in found}

    @override
    @staticmethod
    def default() -> Mapping[str, tuple[str, str, str]]:
        return {}


@operation()
def folders_made(folders: Sequence[OwnedFolder], table: str) -> Generator[StringCommand]:
    """Have the folders of a tmpfiles.d table, as they are to be."""
    found = host.get_fact(FolderOwners, paths=tuple(folder.path for folder in folders))
    wanted = {folder.path: (folder.mode.lstrip("0"), folder.owner, folder.group) for folder in folders}
    if any(found.get(path) != how for path, how in wanted.items()):
        yield StringCommand("systemd-tmpfiles", "--create", table)


@operation()
def device_rules_used(changed: Sequence[Any]) -> Generator[StringCommand]:
    """Have udev use changed rules on devices that are there already."""
    if any(did_change(one) for one in changed):
        yield StringCommand(
            "if [ -S /run/udev/control ]; then udevadm control --reload && "
            "udevadm trigger --action=add --subsystem-match=rtc --subsystem-match=powercap; fi"
        )


class ConsoleTerminals(FactBase[frozenset[str]]):
    """The terminals whose status screen is enabled."""

    @override
    def command(self) -> str:
        return f"ls -1 /etc/systemd/system/multi-user.target.wants 2>/dev/null | grep '^{_UNIT}' || true"

    @override
    def process(self, output: list[str]) -> frozenset[str]:
        return frozenset(line.removeprefix(_UNIT).removesuffix(".service") for line in output)

    @override
    @staticmethod
    def default() -> frozenset[str]:
        return frozenset()


@operation()
def consoles_enabled(terminals: Sequence[str]) -> Generator[StringCommand]:
    """Have the status screen on these terminals in place of a log-in prompt, and on no others."""
    found = host.get_fact(ConsoleTerminals)
    for terminal in sorted(set(terminals) - found):
        yield StringCommand("systemctl", "--quiet", "mask", _prompt(terminal))
        yield StringCommand("systemctl", "--quiet", "enable", f"{_UNIT}{terminal}.service")
    for terminal in sorted(found - set(terminals)):
        yield StringCommand("systemctl", "--quiet", "disable", f"{_UNIT}{terminal}.service")
        yield StringCommand("systemctl", "--quiet", "unmask", _prompt(terminal))


def _prompt(terminal: str) -> str:
    """Return the unit that asks who logs in there."""
    virtual = terminal.startswith("tty") and terminal.removeprefix("tty").isdigit()
    return f"{'getty' if virtual else 'serial-getty'}@{terminal}.service"
