"""Root file systems of Debian, made once with mmdebstrap from the mirror that apt is set up with, and copied."""

import fcntl
import hashlib
import os
import secrets
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from image_build.debian import find_mirror
from image_build.packages import SUITE
from image_build.process import Runner
from image_build.source import checkout

FOLDER = checkout() / "build" / "deploys"
PACKAGES = (
    "ca-certificates",
    "dbus",
    "iproute2",
    "libnss-myhostname",
    "nftables",
    "openssh-server",
    "procps",
    "sudo",
    "systemd",
    "systemd-sysv",
    "systemd-timesyncd",
    "tzdata",
    "unattended-upgrades",
    "wireguard-tools",
)
"""What the base parts want on Debian, so that no test needs a mirror once the root is there."""


def debian_root(packages: Sequence[str] = PACKAGES, suite: str = SUITE) -> Path:
    """Return a root with these packages, which nobody may write to; the first time takes a minute or two.

    Raises:
        ImageError: the machine's apt has no Debian mirror, or mmdebstrap fails.
    """
    key = hashlib.sha256(f"{suite} {' '.join(sorted(packages))}".encode()).hexdigest()[:16]
    FOLDER.mkdir(parents=True, exist_ok=True)
    root = FOLDER / f"root-{key}"
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.exists():
            _make(root, packages, suite)
    return root


def _make(root: Path, packages: Sequence[str], suite: str) -> None:
    new = root.with_name(f"{root.name}.new")
    subprocess.run(["rm", "-rf", "--one-file-system", str(new)], check=True)
    runner = Runner(FOLDER / "mmdebstrap.log", on_line=lambda _: None)
    command = ["unshare", "--mount", "--propagation=private", "--", "mmdebstrap", "--variant=minbase"]
    command += ["--format=directory", "--aptopt=APT::Install-Recommends false", f"--include={','.join(packages)}"]
    sources = [line.replace(SUITE, suite) for line in find_mirror(runner).sources()]
    runner.run([*command, suite, str(new), *sources])
    # As after an installation that nobody has logged in to: a machine of its own makes its own.
    for path in (new / "etc/machine-id", *(new / "etc/ssh").glob("ssh_host_*")):
        path.unlink(missing_ok=True)
    (new / "etc/machine-id").touch()
    new.rename(root)


@contextmanager
def copy_of(root: Path) -> Iterator[Path]:
    """Yield a root that is a test's own: an overlay, because copying and removing thousands of files takes long."""
    folder = FOLDER / f"run-{os.getpid()}-{secrets.token_hex(4)}"
    lower, upper, work, merged = root, folder / "upper", folder / "work", folder / "root"
    for one in (upper, work, merged):
        one.mkdir(parents=True)
    try:
        options = f"lowerdir={lower},upperdir={upper},workdir={work}"
        subprocess.run(["mount", "-t", "overlay", "-o", options, "overlay", str(merged)], check=True)
        try:
            yield merged
        finally:
            subprocess.run(["umount", str(merged)], check=True)
    finally:
        subprocess.run(["rm", "-rf", "--one-file-system", str(folder)], check=True)
