"""Operations of the base system."""

from collections.abc import Generator
from typing import override

from pyinfra import host
from pyinfra.api import FactBase, QuoteString, StringCommand, operation
from pyinfra.facts.files import Link

from pyinfra_deploys.target import has_manager, is_chroot


class OtherClocks(FactBase[bool]):
    """Whether another program than systemd-timesyncd sets the clock."""

    @override
    def command(self) -> str:
        return "ls /usr/sbin/chronyd /usr/sbin/ntpd /usr/sbin/ntpsec 2>/dev/null || true"

    @override
    def process(self, output: list[str]) -> bool:
        return bool(output)

    @override
    @staticmethod
    def default() -> bool:
        return False


class KernelHostName(FactBase[str]):
    """The name that the kernel has."""

    @override
    def command(self) -> str:
        return "cat /proc/sys/kernel/hostname 2>/dev/null || hostname"


class Locales(FactBase[frozenset[str]]):
    """The locales that are generated, in the form of `locale -a`."""

    @override
    def command(self) -> str:
        return "locale -a 2>/dev/null || true"

    @override
    def process(self, output: list[str]) -> frozenset[str]:
        return frozenset(line.strip() for line in output)

    @override
    @staticmethod
    def default() -> frozenset[str]:
        return frozenset()


@operation()
def host_name(wanted: str) -> Generator[StringCommand]:
    """Have the running kernel know the name; in a folder, and in a container, the file is enough."""
    if is_chroot() or not has_manager():
        return
    if host.get_fact(KernelHostName) != wanted:
        yield StringCommand("hostnamectl", "--static", "hostname", QuoteString(wanted))
        yield StringCommand("hostname", QuoteString(wanted))


@operation()
def time_zone(target: str) -> Generator[StringCommand]:
    """Have /etc/localtime point there."""
    found = host.get_fact(Link, path="/etc/localtime")
    if not found or found["link_target"] != target:
        zone = target.removeprefix("../")
        yield StringCommand("test", "-f", QuoteString(f"/{zone}"))
        yield StringCommand("ln", "-sfnT", QuoteString(target), "/etc/localtime.new")
        yield StringCommand("mv", "-fT", "/etc/localtime.new", "/etc/localtime")


@operation()
def locale_generated(wanted: str) -> Generator[StringCommand]:
    """Have a locale generated."""
    listed = wanted.replace("UTF-8", "utf8")
    if listed in host.get_fact(Locales):
        return
    line = f"{wanted} UTF-8"
    yield StringCommand(f"grep -qx '{line}' /etc/locale.gen || echo '{line}' >> /etc/locale.gen")
    yield StringCommand("locale-gen")
