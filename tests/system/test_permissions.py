"""The deploys' rule for polkit, with the real polkitd and logind: it lets the service's user do what it must."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.system.machine.bus_daemon import BusDaemon
from tests.system.machine.bus_daemon import program as dbus_program
from tests.system.machine.real_logind import NotingSystemd, missing, polkitd, real_logind

RULE = Path(__file__).parents[2] / "pyinfra_deploys/appliance/templates/50-rouse-node.rules.j2"
MANAGER = ("org.freedesktop.login1", "/org/freedesktop/login1", "org.freedesktop.login1.Manager")
NOBODY, SOMEBODY = 65534, 2

pytestmark = [
    pytest.mark.skipif(dbus_program() is None, reason="dbus-daemon is not installed: apt-get install dbus"),
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
    pytest.mark.skipif(polkitd() is None, reason="polkit is not installed: apt-get install polkitd"),
    pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv is not installed: apt-get install util-linux"),
]


class Machine:
    """A logind with polkit, asked by users without privileges."""

    def __init__(self, address: str, systemd: NotingSystemd) -> None:
        self._address = address
        self.systemd = systemd

    async def run(self, user: int, *command: str) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            *("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *command),
            env={**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": self._address},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        return process.returncode or 0, output.decode().strip()

    async def call(self, user: int, *arguments: str) -> tuple[int, str]:
        return await self.run(user, "busctl", f"--address={self._address}", "call", *MANAGER, *arguments)

    async def may_inhibit(self, user: int, what: str, mode: str) -> bool:
        code, _ = await self.run(user, "systemd-inhibit", f"--what={what}", f"--mode={mode}", "true")
        return code == 0


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[Machine]:
    rules = tmp_path / "rules"
    rules.mkdir(mode=0o755)
    for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        folder.chmod(0o755)  # polkitd reads its rules as a user of its own
    rule = RULE.read_text()
    assert '"rouse-node"' in rule
    (rules / "50-rouse-node.rules").write_text(rule.replace('"rouse-node"', '"nobody"'))
    async with AsyncExitStack() as stack:
        dbus = await stack.enter_async_context(BusDaemon())
        systemd = await stack.enter_async_context(real_logind(dbus.address, tmp_path, rules=rules))
        yield Machine(dbus.address, systemd)


async def test_the_services_user_may_what_it_must_and_nothing_else(machine: Machine) -> None:
    answers = {call: (await machine.call(NOBODY, call))[1] for call in ("CanSuspend", "CanPowerOff", "CanReboot")}
    assert answers == {"CanSuspend": 's "yes"', "CanPowerOff": 's "yes"', "CanReboot": 's "challenge"'}
    assert await machine.may_inhibit(NOBODY, "sleep", "block")
    assert await machine.may_inhibit(NOBODY, "sleep", "delay")
    assert await machine.may_inhibit(NOBODY, "shutdown", "delay")
    assert not await machine.may_inhibit(NOBODY, "shutdown", "block")
    assert await machine.call(NOBODY, "Suspend", "b", "false") == (0, "")
    await machine.systemd.until_started("suspend.target")


async def test_others_may_not(machine: Machine) -> None:
    assert (await machine.call(SOMEBODY, "CanSuspend"))[1] == 's "challenge"'
    code, said = await machine.call(SOMEBODY, "Suspend", "b", "false")
    assert code != 0
    assert "authentication required" in said
    assert machine.systemd.started == []
    assert not await machine.may_inhibit(SOMEBODY, "sleep", "block")
