"""Turns a root that was installed into one that is never written to.

State moves to the data partition, and what tells one build from another is removed.
"""

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from image_build.cache import remove
from image_build.sandbox import Sandbox

_FACTORY = "usr/share/factory/var"
_DPKG = "usr/lib/sysimage/dpkg"
_MOVED = ("home", "opt", "root", "srv")
"""Folders of the root that hold a machine's own data: links into /var."""
_MOVED_TO = {"root": "roothome"}

_REMOVED = (
    *("boot/*", "etc/.pwd.lock", "etc/hostname", "etc/ld.so.cache~", "etc/mailname", "etc/passwd-", "etc/shadow-"),
    *("etc/apt/apt.conf.d/99mmdebstrap", "etc/dpkg/dpkg.cfg.d/99mmdebstrap"),
    *("etc/group-", "etc/gshadow-", "etc/subuid-", "etc/subgid-", "etc/ssh/ssh_host_*", "etc/systemd/import-pubring*"),
    *("root/.*", "run/*", "tmp/*", "usr/share/doc-base", "usr/share/bug", "usr/share/lintian"),
    *("var/cache/*", "var/lib/apt/*", "var/lib/dbus/machine-id", "var/lib/dpkg/*-old", "var/lib/dpkg/lock*"),
    *("var/lib/dpkg/triggers/Lock", "var/lib/systemd/*", "var/lib/ucf", "var/lib/sgml-base", "var/lib/xml-core"),
    *("var/tmp/*", "var/lib/private/*", "var/lib/pam", "dev/*", "proc/*", "sys/*"),
)
# Programs that are run before anything could have compiled them, and can't keep what they compile.
_COMPILE = """
set -eu
find /usr -name __pycache__ -type d -prune -exec rm -rf {} +
for folder in /usr/lib/python3 /usr/lib/python3.* /usr/lib/rouse /usr/share/python3; do
  [ -d "$folder" ] || continue
  # Test files of some packages can't be compiled, and are not meant to be.
  python3 -m compileall -q -f -j 1 --invalidation-mode unchecked-hash "$folder" > /dev/null || true
done
ldconfig -X
rm -f /var/cache/ldconfig/aux-cache
"""


def finish(sandbox: Sandbox, *, version: str, epoch: int) -> None:
    """Make the root ready for packing.

    Args:
        sandbox: the root, which is changed.
        version: the image's.
        epoch: time stamp of every file, in seconds since 1970.

    Raises:
        StepError: Python or ldconfig fails.
    """
    root = sandbox.root
    sandbox.run(["sh", "-c", _COMPILE], env={"SOURCE_DATE_EPOCH": str(epoch), "PYTHONHASHSEED": "0"})
    for pattern in _REMOVED:
        for path in root.glob(pattern):
            remove(path)
    _empty_logs(root)
    name_version(root, version)
    (root / "etc" / "machine-id").write_text("uninitialized\n")
    # Packages come with the next version of the image; and where these came from is nobody's business.
    (root / "etc" / "apt" / "sources.list").write_text("# Updates are whole images: rouse update\n")
    _move_package_database(root)
    _move_own_data(root)
    _factory_var(root)
    for folder in ("efi", "boot", "proc", "sys", "dev", "run", "tmp", "var"):
        (root / folder).mkdir(exist_ok=True)
    (root / "tmp").chmod(0o1777)
    stamp(root, epoch)


def stamp(root: Path, epoch: int) -> None:
    """Give every file the same time."""
    for path in _everything(root):
        os.utime(path, (epoch, epoch), follow_symlinks=False)


def _everything(folder: Path) -> Iterator[Path]:
    yield folder
    for path, folders, files in folder.walk():
        yield from (path / name for name in (*folders, *files))


def _empty_logs(root: Path) -> None:
    for path in sorted((root / "var" / "log").rglob("*")):
        if path.is_file():
            path.unlink()


def name_version(root: Path, version: str) -> None:
    """Write what systemd, its updates and people read as the version."""
    release = root / "usr" / "lib" / "os-release"
    kept = [
        line
        for line in release.read_text().splitlines()
        if not line.startswith(
            ("IMAGE_", "NAME=", "PRETTY_NAME=", "ID=", "ID_LIKE=", "HOME_URL=", "SUPPORT_URL=", "BUG_")
        )
    ]
    own = [
        f'PRETTY_NAME="Rouse {version}"',
        'NAME="Rouse"',
        "ID=rouse",
        "ID_LIKE=debian",
        "IMAGE_ID=rouse",
        f"IMAGE_VERSION={version}",
    ]
    release.write_text("\n".join([*own, *kept]) + "\n")


def _move_package_database(root: Path) -> None:
    """The list of installed packages belongs to the version, not to the data partition."""
    target = root / _DPKG
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(root / "var" / "lib" / "dpkg", target)
    database = root / "var" / "lib" / "dpkg"
    remove(database)
    database.symlink_to(f"/{_DPKG}")


def _move_own_data(root: Path) -> None:
    for name in _MOVED:
        folder = root / name
        if folder.is_symlink():
            continue
        inside = root / "var" / _MOVED_TO.get(name, name)
        inside.parent.mkdir(parents=True, exist_ok=True)
        if inside.exists():
            shutil.rmtree(inside)
        shutil.move(folder, inside)
        folder.symlink_to(f"var/{inside.name}")


def _factory_var(root: Path) -> None:
    """Move /var into the image's factory; systemd-tmpfiles makes on the data partition what is missing there."""
    var, factory = root / "var", root / _FACTORY
    remove(factory)
    lines = ["# Made with the image: what /var has at least."]
    for path in _everything(var):
        if path == var:
            continue
        name = f"/{path.relative_to(root)}"
        found = path.lstat()
        owner = f"{stat.S_IMODE(found.st_mode):04o} {found.st_uid} {found.st_gid}"
        if path.is_symlink():
            lines.append(f"L {_escaped(name)} - - - - {path.readlink()}")
        elif path.is_dir():
            lines.append(f"d {_escaped(name)} {owner} - -")
        else:
            target = factory / path.relative_to(var)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
            lines.append(f"C {_escaped(name)} {owner} - /{_FACTORY}/{_escaped(str(path.relative_to(var)))}")
    table = root / "usr" / "lib" / "tmpfiles.d" / "00-rouse-var.conf"
    table.write_text("\n".join([lines[0], *sorted(lines[1:], key=lambda line: line.split()[1])]) + "\n")
    for path in var.iterdir():
        remove(path)


def _escaped(name: str) -> str:
    """Escape what tmpfiles.d(5) reads as something else."""
    return name.replace("\\", "\\\\").replace(" ", "\\x20").replace("%", "%%")
