"""Real SSH servers with keys of the test's own; the machine's own server and its files are left alone."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from scripts.house.processes import child, free_port, tail

SECONDS = 30.0
# The server wants a folder in /run that only the machine's own service makes; here it is on a file system of its own.
_START = 'mount -t tmpfs none /run && mkdir -m 755 /run/sshd && exec "$0" -D -e -f "$1"'


def missing() -> str | None:
    """Say what keeps the server from running here."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return "a mount namespace needs root and unshare"
    if program() is None or shutil.which("ssh") is None:
        return "OpenSSH is not installed: apt-get install openssh-server openssh-client"
    return None


def program() -> str | None:
    """Return the server's program."""
    return shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def make_key(path: Path) -> Path:
    """Make a key pair; return the private one."""
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path)]
    subprocess.run(command, check=True, timeout=60, stdin=subprocess.DEVNULL)
    return path


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs."""

    port: int
    host_key: Path

    @property
    def known(self) -> str:
        """Its line in a file of known hosts."""
        kind, key, *_ = self.host_key.with_suffix(".pub").read_text().split()
        return f"[127.0.0.1]:{self.port} {kind} {key}\n"


@asynccontextmanager
async def sshd(folder: Path, *, client_key: Path, force: str | None = None) -> AsyncIterator[Server]:
    """Run a server that lets root in by this key; `force` is run instead of what is asked for."""
    folder.mkdir()
    host_key, port = make_key(folder / "host"), free_port()
    (folder / "authorized").write_text(client_key.with_suffix(".pub").read_text())
    lines = [
        f"ListenAddress 127.0.0.1:{port}",
        f"HostKey {host_key}",
        f"AuthorizedKeysFile {folder / 'authorized'}",
        "PidFile none",
        "StrictModes no",
        "UsePAM no",
        "PermitRootLogin prohibit-password",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "AllowAgentForwarding yes",
        *([f"ForceCommand {force}"] if force is not None else []),
    ]
    (folder / "config").write_text("".join(f"{line}\n" for line in lines))
    command = ["unshare", "--mount", "sh", "-c", _START, str(program()), str(folder / "config")]
    log = folder / "log"
    async with child(command, log=log) as process:
        for _ in range(round(SECONDS / 0.1)):
            if b"Server listening" in log.read_bytes():
                break
            assert process.returncode is None, tail(log)
            await asyncio.sleep(0.1)
        else:
            raise AssertionError(tail(log))
        yield Server(port, host_key)
