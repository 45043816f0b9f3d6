"""The FAT partition is mounted read-only, and is made writable for as long as it takes to write a report."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from appliance.firstboot.errors import ApplyError

_SECONDS = 20


@contextlib.contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Have a folder writable, and as it was afterwards.

    Raises:
        ApplyError: it is mounted read-only and stays so; a stick may have a switch.
    """
    if not os.statvfs(folder).f_flag & os.ST_RDONLY:
        yield
        return
    if not folder.is_mount():
        raise ApplyError(f"{folder}: is read-only")
    _remount(folder, "rw")
    try:
        yield
    finally:
        _remount(folder, "ro")


def _remount(folder: Path, how: str) -> None:
    command = ["mount", "-o", f"remount,{how}", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=_SECONDS)  # noqa: S603 - a fixed command
    except (OSError, subprocess.SubprocessError) as error:
        raise ApplyError(f"{folder}: can't be mounted {how}: {error}") from error
