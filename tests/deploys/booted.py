"""Machines that really run: systemd as the first process of a root file system, in namespaces, on a network of its own.

No virtual machine and no container program is needed, only root. Each machine is at the end of a virtual cable whose
other end this machine has.
"""

import ipaddress
import re
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_BOOT = Path(__file__).parent / "boot.sh"
_SECONDS = 90
_RANGE = ipaddress.ip_network("10.213.0.0/16")


@dataclass(frozen=True, slots=True)
class Booted:
    """A running machine."""

    name: str
    root: Path
    address: str
    pid: int
    """Of its first process, as this machine counts."""

    def run(self, *command: str, check: bool = True) -> str:
        """Run a program there, as root, and return what it says."""
        enter = ["nsenter", "--target", str(self.pid), "--mount", "--net", "--pid", "--uts", "--ipc", "--cgroup", "--"]
        done = subprocess.run([*enter, *command], check=False, capture_output=True, text=True)
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(command)} on {self.name} ended with {done.returncode}: {done.stderr}")
        return done.stdout

    def command_lines(self) -> Iterator[str]:
        """Yield the command line of every process that runs there now."""
        yield from self.run("sh", "-c", "cat /proc/[0-9]*/cmdline 2>/dev/null || true").split("\0")


@contextmanager
def booted(root: Path, *, port: int = 22) -> Iterator[Booted]:
    """Boot a root file system and yield it once its SSH server answers."""
    name = f"rd{secrets.token_hex(3)}"
    with ExitStack() as stack:
        inside = stack.enter_context(_cable(name))
        process = stack.enter_context(_process(name, root))
        pid = _first_process(process)
        machine = Booted(name, root, inside, pid)
        _wait_for_ssh(machine, port, process)
        # Nobody but root may log in before everything is up.
        machine.run("timeout", str(_SECONDS), "systemctl", "is-system-running", "--wait", check=False)
        yield machine


@contextmanager
def _cable(name: str) -> Iterator[str]:
    """Yield the address at the other end of a new cable, which is in a network namespace of that name."""
    network = ipaddress.ip_network((int(_RANGE.network_address) + 4 * secrets.randbelow(1 << 14), 30))
    here, there = (str(address) for address in network.hosts())
    _ip("netns", "add", name)
    try:
        _ip("link", "add", f"{name}h", "type", "veth", "peer", "name", "eth0", "netns", name)
        _ip("address", "add", f"{here}/30", "dev", f"{name}h")
        _ip("link", "set", f"{name}h", "up")
        _ip("-n", name, "address", "add", f"{there}/30", "dev", "eth0")
        for device in ("lo", "eth0"):
            _ip("-n", name, "link", "set", device, "up")
        _ip("-n", name, "route", "add", "default", "via", here)
        yield there
    finally:
        _ip("netns", "delete", name)


@contextmanager
def _process(name: str, root: Path) -> Iterator[subprocess.Popen[bytes]]:
    group = _control_groups() / f"rouse-deploy-{name}"
    group.mkdir()
    unshare = "unshare --mount --pid --fork --cgroup --uts --ipc --kill-child"
    script = f'echo $$ > "$1/cgroup.procs"; exec ip netns exec "$2" {unshare} "$3" "$4"'
    command = ["sh", "-ec", script, "boot", str(group), name, str(_BOOT), str(root)]
    try:
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        ) as process:
            try:
                yield process
            finally:
                process.kill()
    finally:
        _remove_group(group)


def _control_groups() -> Path:
    """Return where the unified hierarchy is mounted, which differs where the old ones are mounted as well."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(place)
    raise RuntimeError("no cgroup2 is mounted")


def _remove_group(group: Path) -> None:
    """Remove a control group once its last process is gone."""
    for _ in range(100):
        with suppress(OSError):
            for folder, _, _ in group.walk(top_down=False):
                folder.rmdir()
        if not group.exists():
            return
        time.sleep(0.1)
    raise AssertionError(f"{group} still has processes")


def _first_process(process: subprocess.Popen[bytes]) -> int:
    """Return systemd's number: it is the one child of the program that made the namespaces."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    for _ in range(100):
        with suppress(FileNotFoundError):
            if found := children.read_text().split():
                return int(found[0])
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise AssertionError(f"the machine did not start: {_said(process)}")


def _said(process: subprocess.Popen[bytes]) -> str:
    process.kill()
    return process.stderr.read().decode(errors="replace") if process.stderr else ""


def _wait_for_ssh(machine: Booted, port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise AssertionError(f"the machine ended: {_said(process)}")
        with suppress(OSError), socket.create_connection((machine.address, port), timeout=1) as connection:
            if re.match(rb"SSH-2", connection.recv(64)):
                return
        time.sleep(0.2)
    raise AssertionError(f"no SSH after {_SECONDS} s: {machine.run('systemctl', '--failed', check=False)}")


def _ip(*arguments: str) -> None:
    _run(["ip", *arguments])


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, check=True, capture_output=True)
