"""Operations on the SSH server."""

from collections.abc import Generator, Sequence
from typing import Any

from pyinfra.api import FunctionCommand, QuoteString, StringCommand, operation

from pyinfra_deploys.reach import log_in_again
from pyinfra_deploys.systemd import did_change


@operation()
def logged_in_again(changed: Sequence[Any], dest: str) -> Generator[FunctionCommand]:
    """See whether a new connection still works; if it does not, take the file away again."""
    if any(did_change(one) for one in changed):
        undo = StringCommand("rm", "-f", QuoteString(dest), "&&", "systemctl", "reload", "ssh.service")
        yield FunctionCommand(log_in_again, (undo,), {})
