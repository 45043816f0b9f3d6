"""Never lose the way to a machine: what a change would cut is refused, and what was changed is tried at once."""

import time
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import override

from paramiko import AuthenticationException, SSHException
from pyinfra import host
from pyinfra.api import FactBase, State, StringCommand
from pyinfra.api.host import Host
from pyinfra.connectors.sshuserclient import SSHClient

from pyinfra_deploys.connection import Ssh
from pyinfra_deploys.errors import DeployError

WHY = "why"
"""Where an operation leaves, for people, why it failed."""
_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Way:
    """How this run reaches the machine, as the machine sees it."""

    client: IPv4Address | IPv6Address
    port: int
    interface: str


class ConnectionSeen(FactBase[Way | None]):
    """The SSH connection as its server sees it; sudo's environment does not know it, so ask without."""

    @override
    def command(self) -> str:
        return 'echo "$SSH_CONNECTION"; ip -o route get "${SSH_CONNECTION%% *}" 2>/dev/null || true'

    @override
    def process(self, output: list[str]) -> Way | None:
        fields = output[0].split()
        if len(fields) != 4:
            return None
        route = output[1].split() if len(output) > 1 else []
        interface = route[route.index("dev") + 1] if "dev" in route[:-1] else ""
        client = ip_address(fields[0].partition("%")[0])
        mapped = client.ipv4_mapped if isinstance(client, IPv6Address) else None
        return Way(mapped or client, int(fields[3]), interface)


def way() -> Way:
    """Return how this run reaches the machine.

    Raises:
        DeployError: the machine does not say.
    """
    found: Way | None = host.get_fact(ConnectionSeen, _sudo=False)
    if found is None:
        raise DeployError("the machine does not say by which connection it is reached (SSH_CONNECTION)")
    return found


def log_in_again(state: State, host: Host, undo: StringCommand | None = None) -> bool:
    """Open a second connection beside the one there is, and return whether that worked.

    pyinfra calls it with the first two arguments. A server that is being restarted gets some seconds.

    Args:
        state: of the run.
        host: the machine; why it failed is left in its `connector_data`.
        undo: command that takes back what was changed, where nothing else does that.
    """
    del state
    connector = host.connector
    if not isinstance(connector, Ssh):
        return True
    deadline = time.monotonic() + _SECONDS
    while (error := _tried(connector)) is not None:
        if isinstance(error, AuthenticationException) or time.monotonic() > deadline:
            break
        time.sleep(1)
    if error is None:
        return True
    host.connector_data[WHY] = f"a new connection failed after the change, which is taken back: {error}"
    if undo is not None:
        host.run_shell_command(undo, _sudo=bool(host.data.get("_sudo")))
    return False


def _tried(connector: Ssh) -> Exception | None:
    arguments = connector.make_paramiko_kwargs()
    client = SSHClient()
    try:
        client.connect(arguments.pop("hostname"), **arguments)
    except (OSError, SSHException, EOFError) as error:
        return error
    finally:
        client.close()
    return None
