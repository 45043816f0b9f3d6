"""The real systemd-logind, on a bus of its own and in a mount namespace where the kernel seems able to sleep.

What it would start to put the machine down (suspend.target, poweroff.target) it asks of a systemd that only notes it.
"""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from dbus_next.message import Message
from dbus_next.signature import Variant

from scripts.house.processes import child, tail
from tests.system.machine.service import Answer, Service, answer
from tests.system.machine.systemd import MANAGER, UNIT
from tests.system.machine.systemd import PATH as SYSTEMD

SCRIPT = """
set -e
mount -t tmpfs none /run
mkdir -p /run/systemd
mount --bind "$1" /sys/power/state
if [ -n "$3" ]; then
    mount --bind "$3" /etc/polkit-1/rules.d
    "$4" --no-debug &
fi
exec "$2"
"""


def missing() -> str | None:
    """Return why it can't run here, or None."""
    if program() is None:
        return "systemd-logind is not installed: apt-get install systemd"
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return "a mount namespace needs root and unshare"
    if not Path("/sys/power/state").exists():
        return "this kernel has no /sys/power/state"
    return None


def program() -> str | None:
    """Return where logind is."""
    return shutil.which("systemd-logind", path="/usr/lib/systemd:/lib/systemd")


def polkitd() -> str | None:
    """Return where polkit's daemon is."""
    return shutil.which("polkitd", path="/usr/lib/polkit-1:/usr/libexec")


class NotingSystemd(Service):
    """Starts nothing, and says that a job has ended when the test says so."""

    def __init__(self, address: str) -> None:
        super().__init__(address, "org.freedesktop.systemd1")
        self.started: list[str] = []
        self.methods[SYSTEMD, "Subscribe"] = lambda _: answer()
        self.methods[SYSTEMD, "StartUnit"] = self._start
        for target in ("suspend", "poweroff"):
            self.properties[f"{SYSTEMD}/unit/{target}_2etarget", UNIT, "LoadState"] = Variant("s", "loaded")

    def _start(self, message: Message) -> Answer:
        self.started.append(message.body[0])
        return answer("o", f"{SYSTEMD}/job/{len(self.started)}")

    async def until_started(self, unit: str) -> None:
        async with asyncio.timeout(20):
            while unit not in self.started:
                await asyncio.sleep(0.02)

    async def finish(self) -> None:
        """The last job has ended: the machine has slept, and woken."""
        job = f"{SYSTEMD}/job/{len(self.started)}"
        await self.signal(SYSTEMD, MANAGER, "JobRemoved", "uoss", 1, job, self.started[-1], "done")


@asynccontextmanager
async def real_logind(address: str, folder: Path, *, rules: Path | None = None) -> AsyncIterator[NotingSystemd]:
    """Run logind until the context ends, and with a folder of rules the real polkitd beside it."""
    found, state, log = program(), folder / "power-state", folder / "logind.log"
    assert found is not None
    state.write_text("freeze mem disk\n")
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", SCRIPT, "sh", str(state), found]
    command += [str(rules), str(polkitd())] if rules is not None else ["", ""]
    environment = {**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": address, "SYSTEMD_LOG_TARGET": "console"}
    async with NotingSystemd(address) as systemd, child(command, log=log, environment=environment, grace=5) as process:
        async with asyncio.timeout(20):
            for name in ("org.freedesktop.login1", *(("org.freedesktop.PolicyKit1",) if rules else ())):
                while not await _is_there(systemd, name):
                    assert process.returncode is None, tail(log)
                    await asyncio.sleep(0.05)
        yield systemd


async def _is_there(systemd: NotingSystemd, name: str) -> bool:
    reply = await systemd.bus.ask(
        Message(
            destination="org.freedesktop.DBus",
            path="/org/freedesktop/DBus",
            interface="org.freedesktop.DBus",
            member="NameHasOwner",
            signature="s",
            body=[name],
        )
    )
    return reply is not None and reply.body == [True]
