"""A root file system that the services can be deployed to, and what is done in it."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.deploys.roots import PACKAGES

SERVICES = ("bubblewrap", "libgomp1", "mosquitto", "polkitd", "python3", "python3-venv", "udev")
ALL_PACKAGES = (*PACKAGES, *SERVICES)
PARTS = tuple(
    argument
    for part in ("users", "appliance", "broker", "models", "power", "services")
    for argument in ("--part", part)
)


def inside(root: Path, *command: str, check: bool = True) -> str:
    """Run a program of the root, with /proc, and without its network."""
    script = 'mount -t proc proc "$0/proc" && exec chroot "$0" "$@"'
    apart = ("--mount", "--net", "--pid", "--uts", "--fork", "--propagation", "private")
    done = subprocess.run(
        ["unshare", *apart, "sh", "-ec", script, str(root), *command],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "SYSTEMD_COLORS": "0"},
    )
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(command)} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def as_user(name: str, *command: str) -> Sequence[str]:
    """Return the command line that does something as a user, with that user's groups and no more rights."""
    group = "nogroup" if name == "nobody" else name
    return ["setpriv", f"--reuid={name}", f"--regid={group}", "--init-groups", "--bounding-set=-all", *command]
