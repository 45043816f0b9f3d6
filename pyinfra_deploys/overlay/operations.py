"""Operations on systemd-networkd."""

from collections.abc import Generator, Sequence
from typing import Any

from pyinfra import host
from pyinfra.api import QuoteString, StringCommand, operation

from pyinfra_deploys.systemd import UnitFileState, did_change
from pyinfra_deploys.target import has_manager


@operation()
def networkd_enabled() -> Generator[StringCommand]:
    """Have networkd started at boot. Where another program does the rest, nobody waits for networkd to be online."""
    if host.get_fact(UnitFileState, unit="systemd-networkd.service") != "enabled":
        yield StringCommand("systemctl", "--quiet", "enable", "systemd-networkd.service")
        yield StringCommand("systemctl", "--quiet", "disable", "systemd-networkd-wait-online.service")


@operation()
def taken_by_networkd(interface: str, changed: Sequence[Any]) -> Generator[StringCommand]:
    """Have networkd make the interface anew: a running one keeps its peers in older versions."""
    if has_manager() and any(did_change(one) for one in changed):
        name = QuoteString(interface)
        yield StringCommand("ip link delete dev", name, "2>/dev/null; systemctl restart systemd-networkd.service")
