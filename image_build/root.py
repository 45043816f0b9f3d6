"""Assembles the appliance's root file system: Debian, the image's own files, Rouse, and what the deploys make of it."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from image_build.cache import remove
from image_build.process import Runner
from image_build.sandbox import Sandbox
from image_build.wheelhouse import Wheelhouse

FILES = Path(__file__).parent / "files" / "root"

PROGRAM = "/usr/lib/rouse"
"""Rouse's virtual environment on an appliance."""

_ENABLED = (
    "rouse-boot-deadline.timer",
    "rouse-etc-good.service",
    "rouse-healthy.service",
    "rouse-host-keys.service",
    "run-rouse-config.mount",
    "systemd-networkd.service",
    "systemd-resolved.service",
    "systemd-timesyncd.service",
    "ssh.service",
)
_DISABLED = (
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer"),  # packages come with the image
    *("e2scrub_all.timer", "e2scrub_reap.service"),  # there is no LVM
    "smartmontools.service",  # its mail reaches nobody; `rouse preflight` asks the disks
    "iwd.service",  # udev starts it where there is a wireless interface
    "prometheus-node-exporter.service",  # monitoring is for `rouse deploy`
    "systemd-networkd-persistent-storage.service",
)
_INSTALL = f"""
set -eu
python3 -m venv --without-pip {PROGRAM}
pip="{PROGRAM}/bin/python /run/pip.whl/pip install --no-index --no-deps --no-compile --no-cache-dir
  --disable-pip-version-check --root-user-action=ignore -q"
$pip --find-links /run/locked --require-hashes -r /run/requirements.txt
$pip /run/built/*.whl
ln -sfn ../lib/rouse/bin/rouse /usr/bin/rouse
"""


@dataclass(frozen=True, slots=True)
class RootBuild:
    """Makes a root from a copy of Debian's.

    Attributes:
        debian: folder that mmdebstrap made.
        builder: folder with the compiler; pip is taken from it.
        wheelhouse: Rouse and all that it needs.
        runner: runs programs.
        epoch: time stamp of what is made, in seconds since 1970.
    """

    debian: Path
    builder: Path
    wheelhouse: Wheelhouse
    runner: Runner
    epoch: int

    def copy(self, root: Path) -> Sandbox:
        """Copy Debian's root to where the appliance is made."""
        remove(root)
        root.parent.mkdir(parents=True, exist_ok=True)
        self.runner.run(["cp", "-a", "--reflink=auto", str(self.debian), str(root)])
        return Sandbox(root, self.runner, writable=True)

    def add_files(self, sandbox: Sandbox) -> None:
        """Add the image's own units and tables, and enable what is always on."""
        for source in sorted(path for path in FILES.rglob("*") if path.is_symlink() or path.is_file()):
            target = sandbox.root / source.relative_to(FILES)
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_symlink():
                remove(target)
                target.symlink_to(source.readlink())
                continue
            shutil.copyfile(source, target)
            target.chmod(0o755 if os.access(source, os.X_OK) else 0o644)
        sandbox.run(["systemctl", "--quiet", "disable", *_DISABLED])
        sandbox.run(["systemctl", "--quiet", "enable", *_ENABLED])
        resolv = sandbox.root / "etc" / "resolv.conf"
        remove(resolv)
        resolv.symlink_to("../run/systemd/resolve/stub-resolv.conf")

    def install(self, sandbox: Sandbox) -> None:
        """Install the appliance into its virtual environment, from files alone."""
        pip = next((self.builder / "usr" / "share" / "python-wheels").glob("pip-*.whl"))
        wheels = [path for folder in self.wheelhouse.built for path in sorted(folder.glob("*.whl"))]
        sandbox.run(
            ["sh", "-c", _INSTALL],
            readable={
                pip: "/run/pip.whl",
                self.wheelhouse.locked: "/run/locked",
                self.wheelhouse.requirements: "/run/requirements.txt",
                **{path: f"/run/built/{path.name}" for path in wheels},
            },
            env={"SOURCE_DATE_EPOCH": str(self.epoch)},
        )
