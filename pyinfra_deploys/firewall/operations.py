"""Applies rules in one step, and takes them back by itself unless a new connection proves that they let us in."""

from collections.abc import Generator, Sequence
from typing import Any, override

from pyinfra import host
from pyinfra.api import FactBase, FunctionCommand, QuoteString, StringCommand, operation
from pyinfra.api.command import PyinfraCommand

from pyinfra_deploys.reach import log_in_again
from pyinfra_deploys.systemd import did_change
from pyinfra_deploys.target import is_remote

_SECONDS = 30
_BEFORE = "/run/rouse-firewall-before.nft"
_KEEP = (
    f"umask 077; {{ printf 'table inet rouse\\ndelete table inet rouse\\n'; nft -s list table inet rouse 2>/dev/null; "
    f"true; }} > {_BEFORE}"
)
# While the file is there, the rules are on trial; they are taken back even when nobody can tell the machine to.
_TRIAL = (
    f"setsid -f sh -c 'sleep {_SECONDS}; [ ! -e {_BEFORE} ] || nft -f {_BEFORE}; rm -f {_BEFORE}' "
    "< /dev/null > /dev/null 2>&1"
)


class TableLoaded(FactBase[bool]):
    """Whether the kernel has our rules."""

    @override
    def command(self) -> str:
        return "nft list tables 2>/dev/null | grep -x 'table inet rouse' || true"

    @override
    def process(self, output: list[str]) -> bool:
        return bool(output)

    @override
    @staticmethod
    def default() -> bool:
        return False


@operation()
def applied(rules: str, changed: Sequence[Any]) -> Generator[PyinfraCommand]:
    """Have the kernel use the rules."""
    if host.get_fact(TableLoaded) and not any(did_change(one) for one in changed):
        return
    load = StringCommand("nft", "-f", QuoteString(rules))
    if not is_remote():
        yield load
        return
    yield StringCommand(_KEEP)
    yield StringCommand(_TRIAL)
    yield load
    yield FunctionCommand(log_in_again, (StringCommand("nft", "-f", _BEFORE, "&&", "rm", "-f", _BEFORE),), {})
    yield StringCommand("rm", "-f", _BEFORE)
