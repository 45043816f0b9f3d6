import asyncio
import os
from pathlib import Path

import psutil
import pytest

from appliance.power.errors import RungError
from appliance.power.nodes import KnownNode
from appliance.power.recovery.ipmi import IpmiRung
from appliance.power.recovery.programs import MAX_OUTPUT, run
from appliance.power.recovery.script import ScriptRung
from appliance.settings.waking import RecoveryNodeSettings
from tests.unit.power.recovery.machines import PASSWORD, Controller, program

NODE = KnownNode("attic")


def ipmi(controller: Controller, **more: object) -> IpmiRung:
    settings = RecoveryNodeSettings.model_validate(
        {"ipmi": {"host": "192.0.2.9", "password_file": controller.password_file, **more}}
    )
    return IpmiRung(nodes={"attic": settings}, patience=1, path=controller.path)


@pytest.mark.parametrize(("power", "action"), [("off", "on"), ("on", "cycle")])
async def test_ipmi_switches_on_what_is_off_and_cycles_what_is_on(tmp_path: Path, power: str, action: str) -> None:
    controller = Controller(tmp_path, power)
    done = await ipmi(controller).act(NODE)
    assert controller.commands() == [
        "-I lanplus -H 192.0.2.9 -U ADMIN -E chassis power status",
        f"-I lanplus -H 192.0.2.9 -U ADMIN -E chassis power {action}",
    ]
    assert done.evidence.startswith(f"Chassis Power is {power}; chassis power {action}: Chassis Power Control: ")


async def test_ipmis_password_is_in_its_environment_only_and_nothing_else_of_ours_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROUSE_BROKER__PASSWORD", "secret")
    controller = Controller(tmp_path)
    await ipmi(controller).act(NODE)
    assert all(PASSWORD not in command for command in controller.commands())
    names = {line.partition("=")[0] for line in controller.environment()}
    assert names - {"PWD", "SHLVL", "OLDPWD", "_", "here"} == {"IPMITOOL_PASSWORD", "PATH", "LC_ALL"}


async def test_ipmis_password_is_not_in_the_evidence(tmp_path: Path) -> None:
    controller = Controller(tmp_path)
    controller.password_file.write_text("another\n")
    with pytest.raises(RungError) as caught:
        await ipmi(controller).act(NODE)
    assert str(caught.value) == (
        "ipmitool chassis power status ended with 1: Error: Unable to establish IPMI v2 / RMCP+ session with password …"
    )


async def test_ipmi_that_is_not_installed_or_has_no_password_says_so(tmp_path: Path) -> None:
    controller = Controller(tmp_path)
    (tmp_path / "ipmitool").unlink()
    rung = ipmi(controller)
    rung._path = str(tmp_path)
    with pytest.raises(RungError, match="ipmitool can't be started: No such file"):
        await rung.act(NODE)
    controller.password_file.unlink()
    with pytest.raises(RungError, match="can't be read as a secret"):
        await rung.act(NODE)


def test_who_is_not_set_up_is_not_served(tmp_path: Path) -> None:
    assert ipmi(Controller(tmp_path)).serves("attic")
    assert not ipmi(Controller(tmp_path)).serves("cellar")
    assert not IpmiRung(nodes={"attic": RecoveryNodeSettings()}, patience=1, path="").serves("attic")


async def test_a_script_gets_the_nodes_name_and_no_shell(tmp_path: Path) -> None:
    file = program(tmp_path / "sysrq; echo", 'echo "$#:$1:$0"; pwd')
    rung = ScriptRung(nodes={"attic": RecoveryNodeSettings(script=file)}, seconds=10, patience=1, path="/usr/bin:/bin")
    done = await rung.act(NODE)
    assert done.evidence == f"{file} ended well: 1:attic:{file} /"


async def test_a_script_that_fails_is_evidence(tmp_path: Path) -> None:
    file = program(tmp_path / "sysrq", "echo no such console >&2", "exit 3")
    rung = ScriptRung(nodes={"attic": RecoveryNodeSettings(script=file)}, seconds=10, patience=1, path="/bin")
    with pytest.raises(RungError, match="ended with 3: no such console"):
        await rung.act(NODE)
    file.chmod(0o644)
    with pytest.raises(RungError, match="can't be started: Permission denied"):
        await rung.act(NODE)


async def test_a_program_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    file = program(
        tmp_path / "hangs", "trap '' TERM", f"sleep 1000 & echo $! > {tmp_path}/child", "echo begun", "wait; sleep 1000"
    )
    with pytest.raises(RungError, match=r"did not end within 1 s; it said: begun"):
        await run(file, [], environment={"PATH": "/usr/bin:/bin"}, seconds=1)
    child = int((tmp_path / "child").read_text())
    async with asyncio.timeout(10):
        while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
            await asyncio.sleep(0.01)


async def test_a_program_whose_child_keeps_its_output_open_is_ended_too(tmp_path: Path) -> None:
    file = program(tmp_path / "leaves", f"sleep 1000 & echo $! > {tmp_path}/child")
    with pytest.raises(RungError, match="did not end within 1 s"):
        await run(file, [], environment={"PATH": "/usr/bin:/bin"}, seconds=1)
    child = int((tmp_path / "child").read_text())
    async with asyncio.timeout(10):
        while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
            await asyncio.sleep(0.01)


async def test_a_program_that_never_stops_talking_does_not_fill_the_memory(tmp_path: Path) -> None:
    file = program(tmp_path / "talks", "head -c 3000000 /dev/zero | tr '\\0' x", "printf '\\033[31m'")
    ran = await run(file, [], environment={"PATH": "/usr/bin:/bin"}, seconds=30)
    assert ran.status == 0
    assert ran.said == "x" * MAX_OUTPUT


async def test_being_cancelled_ends_the_program(tmp_path: Path) -> None:
    file = program(tmp_path / "waits", f"echo $$ > {tmp_path}/self", "exec sleep 1000")
    running = asyncio.create_task(run(file, [], environment={"PATH": "/usr/bin:/bin"}, seconds=60))
    async with asyncio.timeout(10):
        while not (tmp_path / "self").exists() or not (tmp_path / "self").read_text():
            await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "self").read_text()), 0)
