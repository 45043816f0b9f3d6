"""Operations of this part."""

from collections.abc import Generator, Sequence
from typing import Any

from pyinfra.api import StringCommand, operation

from pyinfra_deploys.systemd import did_change


@operation()
def cards_armed(changed: Sequence[Any]) -> Generator[StringCommand]:
    """Have udev set up the network cards again, by changed files; at the next boot it does so anyway."""
    if any(did_change(one) for one in changed):
        yield StringCommand(
            "if [ -S /run/udev/control ]; then udevadm control --reload && "
            "udevadm trigger --action=add --subsystem-match=net; fi"
        )
