"""The kernels that systemd-boot knows, and how it counts their tries.

A kernel `rouse_2+3-0.efi` has three tries left; systemd-boot takes one by renaming before each start, and
systemd-bless-boot takes the counter away once the boot is good. Those without tries come last, whatever their version
(https://systemd.io/AUTOMATIC_BOOT_ASSESSMENT/).
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from appliance.updates.errors import InstallError
from appliance.updates.versions import VERSION, newest_first

TRIES = 3
_NAME = re.compile(
    rf"rouse_(?P<version>{VERSION})(?:\+(?P<left>\d{{1,3}})(?:-(?P<done>\d{{1,3}}))?)?\.efi", re.IGNORECASE
)
_LEFTOVER = ".#"
"""What systemd-sysupdate calls a file that is not complete."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """A version's entry in the boot loader."""

    version: str
    left: int | None
    """Tries left; None for one that is known to be good."""
    path: Path


def installed(folder: Path) -> tuple[Kernel, ...]:
    """Return the kernels, newest first.

    Raises:
        InstallError: the boot partition can't be read.
    """
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise InstallError(f"the boot partition can't be read: {error}") from error
    kernels = [
        Kernel(match["version"], int(match["left"]) if match["left"] is not None else None, path)
        for path in paths
        if (match := _NAME.fullmatch(path.name)) is not None
    ]
    return tuple(sorted(kernels, key=lambda kernel: newest_first(kernel.version)))


def put_last(kernel: Kernel) -> None:
    """Have a kernel started only when no other one is to be tried. Raises InstallError."""
    _rename(kernel, f"rouse_{kernel.version}+0.efi")


def try_anew(kernel: Kernel) -> None:
    """Have a kernel tried as if it had just been installed. Raises InstallError."""
    _rename(kernel, f"rouse_{kernel.version}+{TRIES}-0.efi")


def remove_leftovers(folder: Path) -> None:
    """Remove what an interrupted update left on the boot partition, which is small. Raises InstallError."""
    try:
        for path in folder.iterdir():
            if path.name.startswith(_LEFTOVER):
                path.unlink()
    except OSError as error:
        raise InstallError(f"the boot partition can't be written: {error}") from error


def restart_helps(kernels: tuple[Kernel, ...], running: str) -> bool:
    """Whether the next start would be another try, or another version, after one that is not healthy."""
    own = next((kernel for kernel in kernels if kernel.version == running), None)
    if own is None or own.left is None:
        return False
    return own.left > 0 or any(kernel.left != 0 for kernel in kernels if kernel.version != running)


def _rename(kernel: Kernel, name: str) -> None:
    try:
        kernel.path.rename(kernel.path.with_name(name))
        descriptor = os.open(kernel.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise InstallError(f"the boot partition can't be written: {error}") from error
