"""systemd-sysupdate: writes a verified version into the other slot.

https://www.freedesktop.org/software/systemd/man/latest/systemd-sysupdate.html; the image has its transfer files in
`/usr/lib/sysupdate.d`. It says `X_SYSUPDATE_PROGRESS=` to whoever listens as its service manager.
"""

import os
import re
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from appliance.updates.errors import InstallError

PROGRAM = "/usr/lib/systemd/systemd-sysupdate"
_PROGRESS = re.compile(rb"^X_SYSUPDATE_PROGRESS=(\d{1,3})$", re.MULTILINE)
_SECONDS = 3000
_TAIL = 600

type OnPercent = Callable[[int], None]


def empty_other_slot() -> None:
    """Forget the version that is in the other slot, whole or in part. Raises InstallError."""
    _run(["--instances-max=1", "vacuum"], lambda _: None)


def install(version: str, on_percent: OnPercent) -> None:
    """Install a version.

    That it ends well does not mean that something was installed: the caller looks.

    Raises:
        InstallError: it fails.
    """
    _run(["update", version], on_percent)


def _run(arguments: list[str], on_percent: OnPercent) -> None:
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        address = Path(folder) / "notify"
        listener.bind(str(address))
        # In a thread: a datagram that nobody takes would hold the sender up.
        thread = threading.Thread(target=_listen, args=(listener, on_percent), name="sysupdate progress", daemon=True)
        thread.start()
        try:
            done = subprocess.run(  # noqa: S603 - a fixed program; the version is one
                [PROGRAM, "--verify=no", "--no-pager", *arguments],
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=_SECONDS,
                env={**os.environ, "NOTIFY_SOCKET": str(address), "SYSTEMD_LOG_LEVEL": "info"},
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise InstallError(f"systemd-sysupdate: {error}") from error
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
    if done.returncode != 0:
        said = " ".join(done.stdout.decode(errors="replace").split())[-_TAIL:]
        raise InstallError(f"systemd-sysupdate ended with {done.returncode}: {said}")


def _listen(listener: socket.socket, on_percent: OnPercent) -> None:
    while datagram := listener.recv(4096):
        if (found := _PROGRESS.search(datagram)) is not None:
            on_percent(min(int(found[1]), 100))
