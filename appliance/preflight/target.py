"""Which machine, and how it is reached: this one, or another one by the system's own SSH client."""

import re
from dataclasses import dataclass
from pathlib import Path

from appliance.preflight.errors import TargetError

LOCAL = "@local"
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}\$?")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_ADDRESS = re.compile(r"[0-9A-Fa-f:.]{2,45}(%[A-Za-z0-9_.-]{1,15})?")
CONNECT_SECONDS = 10.0
_ALIVE_SECONDS, _ALIVE_TIMES = 5, 3


@dataclass(frozen=True, slots=True)
class Target:
    """A machine.

    Attributes:
        name: what people call it.
        host: its address or host name; None is this machine.
        user: who logs in; the SSH client's choice when None.
        port: the SSH server's; the SSH client's choice when None.
        key: private key to log in with; the SSH client's choice when None.
        known_hosts: file with the host keys that are trusted; the SSH client's when None.
        ssh_config: configuration of the SSH client; the user's and the system's when None.
        accept_new: whether a host key that was never seen is taken and remembered; one that has changed never is.
        connect_seconds: how long a connection may take.
    """

    name: str
    host: str | None = None
    user: str | None = None
    port: int | None = None
    key: Path | None = None
    known_hosts: Path | None = None
    ssh_config: Path | None = None
    accept_new: bool = False
    connect_seconds: float = CONNECT_SECONDS

    def __post_init__(self) -> None:
        """Refuse what the SSH client could take for something else than a host or a user.

        Raises:
            TargetError: it is not of that form.
        """
        if self.host is not None and not (_HOST.fullmatch(self.host) or _is_address(self.host)):
            raise TargetError(f"{self.host!r}: expected a host name or an address")
        if self.user is not None and _USER.fullmatch(self.user) is None:
            raise TargetError(f"{self.user!r}: is no name of a user")
        if self.port is not None and not 1 <= self.port <= 65535:
            raise TargetError(f"{self.port}: is no port; expected 1 to 65535")

    @property
    def command(self) -> tuple[str, ...]:
        """The program that reads a script from standard input and runs it there.

        It asks nothing, trusts no host key that is not known already (unless `accept_new` says so), and lends the
        machine neither the agent nor the screen nor a port.
        """
        if self.host is None:
            return ("/bin/sh", "-s")
        options = {
            "BatchMode": "yes",
            "StrictHostKeyChecking": "accept-new" if self.accept_new else "yes",
            "UpdateHostKeys": "no",
            "ConnectTimeout": str(max(1, round(self.connect_seconds))),
            "ConnectionAttempts": "1",
            "ServerAliveInterval": str(_ALIVE_SECONDS),
            "ServerAliveCountMax": str(_ALIVE_TIMES),
            "ForwardAgent": "no",
            "ForwardX11": "no",
            "ClearAllForwardings": "yes",
            "PermitLocalCommand": "no",
            "ControlMaster": "no",
            "ControlPath": "none",
            "AddKeysToAgent": "no",
            "RequestTTY": "no",
            "RemoteCommand": "none",
            "EscapeChar": "none",
            "LogLevel": "ERROR",
        }
        if self.known_hosts is not None:
            options["UserKnownHostsFile"] = _quoted(self.known_hosts)
            options["GlobalKnownHostsFile"] = "/dev/null"
        if self.key is not None:
            options["IdentitiesOnly"] = "yes"
            options["IdentityFile"] = _quoted(self.key)
        command = ["ssh", *(("-F", str(self.ssh_config)) if self.ssh_config is not None else ())]
        for name, value in options.items():
            command += ["-o", f"{name}={value}"]
        command += ["-p", str(self.port)] if self.port is not None else []
        command += ["-l", self.user] if self.user is not None else []
        return (*command, "--", self.host, "/bin/sh -s")

    @property
    def reached(self) -> str:
        """Where it is, for messages."""
        if self.host is None:
            return self.name
        host = f"[{self.host}]" if ":" in self.host else self.host
        user = f"{self.user}@" if self.user is not None else ""
        return f"{user}{host}{f':{self.port}' if self.port is not None else ''}"


def _is_address(text: str) -> bool:
    return _ADDRESS.fullmatch(text) is not None and ":" in text


def _quoted(path: Path) -> str:
    """Write a path as the client's options take it: it splits at spaces, and fills in what follows a percent sign."""
    text = str(path).replace("%", "%%")
    if '"' in text or not text.isprintable():
        raise TargetError(f"{path}: the SSH client takes no such path")
    return f'"{text}"'


def is_direct(text: str) -> bool:
    """Whether this names a machine by user and address rather than by its name in the inventory."""
    return "@" in text and text != LOCAL


def parse_direct(text: str) -> Target:
    """Read `user@host`, `user@host:port` or `user@[address]:port`.

    Raises:
        TargetError: it is of another form.
    """
    match = re.fullmatch(r"([^@]+)@(?:\[([^\]]+)\]|([^:@\[\]]+))(?::([0-9]{1,5}))?", text)
    if match is None:
        raise TargetError(f"{text!r}: expected user@host or user@host:port; an IPv6 address in brackets")
    return Target(
        name=text,
        host=match[2] or match[3],
        user=match[1],
        port=int(match[4]) if match[4] is not None else None,
    )
