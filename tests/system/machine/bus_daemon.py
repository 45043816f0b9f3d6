"""A real message bus with a socket of its own, that a test can kill and start again."""

import asyncio
import shutil
import socket
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self

from scripts.house.processes import child, tail

CONFIGURATION = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
"""


def program() -> str | None:
    """Return where dbus-daemon is."""
    return shutil.which("dbus-daemon")


class BusDaemon:
    """dbus-daemon as an async context manager."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="rouse-dbus-")
        folder = Path(self._folder.name)
        folder.chmod(0o755)
        self._socket = folder / "bus"
        self._log = folder / "log"
        self._configuration = folder / "bus.conf"
        self._configuration.write_text(CONFIGURATION.format(socket=self._socket))
        self._stack = AsyncExitStack()
        self.address = f"unix:path={self._socket}"

    async def start(self) -> None:
        found = program()
        assert found is not None
        self._socket.unlink(missing_ok=True)
        command = [found, f"--config-file={self._configuration}", "--nofork", "--nopidfile"]
        process = await self._stack.enter_async_context(child(command, log=self._log, grace=5))
        async with asyncio.timeout(10):
            while not self._listens():
                assert process.returncode is None, tail(self._log)
                await asyncio.sleep(0.02)

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self._socket)) == 0

    async def kill(self) -> None:
        await self._stack.aclose()

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.kill()
            raise
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.kill()
        self._folder.cleanup()
