"""Preflight of this machine, and of it over real SSH: servers that answer, lie, hang, talk without end, or are gone."""

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from appliance.models import catalogue
from appliance.preflight.checks.clock import told_time
from appliance.preflight.dump import parse
from appliance.preflight.errors import DumpError, HostKeyError, UnreachedError
from appliance.preflight.gather import gather, script
from appliance.preflight.report import Report, report_on
from appliance.preflight.run import Machine, Unreached, check, check_all
from appliance.preflight.target import Target
from appliance.preflight.wanted import Peer, Wanted, wanted_of
from appliance.settings import Settings
from tests.system.machine.sshd import Server, make_key, missing, sshd

ROOT = Path(__file__).parents[2]
over_ssh = [pytest.mark.root, pytest.mark.skipif(missing() is not None, reason=str(missing()))]
WANTED = wanted_of(Settings(), catalogue.load(), roles=("hub",))


def lasting(report: Report) -> dict[str, str]:
    """Return what was found that other programs on this machine don't change meanwhile."""
    parts = ("system.", "processor.", "disk.health.", "sleep.", "wake.alarm", "gpu", "power.")
    kept = {"disk.file-system", "memory.hub", "network.gateway"}
    return {one.id: one.found for one in report.results if one.id.startswith(parts) or one.id in kept}


async def test_this_machine() -> None:
    found = await check(Machine(Target("@local"), WANTED))
    assert isinstance(found, Report)
    by = {result.id: result for result in found.results}
    assert found.name == socket.gethostname()
    assert by["system.kernel"].found == f"Linux {os.uname().release}"
    total = psutil.virtual_memory().total
    assert by["memory.hub"].found in {
        f"{total / 2**30:.1f} GiB",
        f"{total / 2**30:.0f} GiB",
        f"{total / 2**20:.0f} MiB",
    }
    assert by["processor.cores"].found.startswith(str(psutil.cpu_count(logical=False) or psutil.cpu_count()))
    assert "clock.skew" not in by
    assert "free on /" in by["disk.state"].found
    assert by["system.administrator"].found.startswith("root" if os.geteuid() == 0 else "user")
    names = {name for name, of in psutil.net_if_addrs().items() if any(one.family == socket.AF_INET for one in of)}
    assert any(f"({name})" in by["network.addresses"].found for name in names - {"lo"}) or names == {"lo"}


async def test_a_port_that_is_taken_and_the_way_to_a_broker() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = Settings.model_validate({"gateway": {"port": port}})
        wanted = wanted_of(settings, catalogue.load(), roles=("hub",))
        found = await check(
            Machine(Target("@local"), Wanted(roles=("hub",), ports=wanted.ports, peer=Peer("localhost", port)))
        )
        assert isinstance(found, Report)
        by = {result.id: result for result in found.results}
        assert by[f"ports.{port}"].verdict == "bad"
        assert found.unfit == ("hub",)
        assert by["network.broker"].verdict == "ok", by["network.broker"]
    found = await check(Machine(Target("@local"), Wanted(peer=Peer("localhost", port))))
    assert isinstance(found, Report)
    assert {result.id: result.verdict for result in found.results}["network.broker"] == "warn"


async def test_what_settings_hold_is_never_run(tmp_path: Path) -> None:
    evil = f"'; touch {tmp_path}/one; $(touch {tmp_path}/two)`touch {tmp_path}/three` #"
    settings = Settings.model_validate({
        "paths": {"state": f"/{evil}", "models": f"/{evil}"},
        "experts": {"x": {"model": f"{evil}.gguf"}},
    })  # fmt: skip
    wanted = wanted_of(settings, catalogue.load(), roles=None)
    for peer in ("$(touch x)", "-oProxyCommand=x", "a b", "'"):
        target = Machine(
            Target("@local"),
            Wanted(state=wanted.state, models=wanted.models, experts=wanted.experts, peer=Peer(peer, 1)),
        )
        assert isinstance(await check(target), Report)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root and unshare")
def test_it_runs_where_nothing_can_be_written(tmp_path: Path) -> None:
    script = (
        "mount --make-rprivate / && for at in $(cut -d' ' -f5 /proc/self/mountinfo | sort -r); do "
        'mount -o remount,bind,ro "$at" 2>/dev/null; done; ! touch "$1/written" 2>/dev/null || exit 9; '
        'exec "$2" -m appliance --config-dir "$1" preflight --json'
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", str(tmp_path), sys.executable],
        check=False, capture_output=True, timeout=100, env=environment,
    )  # fmt: skip
    assert done.returncode in {0, 1}, done.stderr.decode()
    assert json.loads(done.stdout)["machines"][0]["reached"] is True


@dataclass
class Keys:
    """What a client has."""

    folder: Path
    key: Path
    known_hosts: Path

    def target(self, server: Server, **changes: Any) -> Target:
        self.known_hosts.write_text(server.known)
        config = self.folder / "ssh_config"
        config.touch()
        wanted = {"port": server.port, "known_hosts": self.known_hosts, "ssh_config": config, **changes}
        return Target("attic", host="127.0.0.1", user="root", key=self.key, **wanted)

    async def check(self, server: Server, seconds: float = 60.0, **changes: Any) -> Report | Unreached:
        return await check(Machine(self.target(server, **changes), WANTED), seconds=seconds)


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path, make_key(tmp_path / "client"), tmp_path / "known_hosts")


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


class TestSsh:
    pytestmark = over_ssh

    async def test_the_same_as_here(self, keys: Keys, stack: AsyncExitStack) -> None:
        server = await stack.enter_async_context(sshd(keys.folder / "sshd", client_key=keys.key))
        here, there = await check(Machine(Target("@local"), WANTED)), await keys.check(server)
        assert isinstance(here, Report)
        assert isinstance(there, Report), there
        by = {result.id: result for result in there.results}
        assert by.pop("clock.skew").verdict in {"ok", "unknown"}, "a busy machine answers slowly"
        assert set(by) == {result.id for result in here.results}
        assert lasting(here) == lasting(there)

    async def test_what_a_shell_says_beside(self, keys: Keys, stack: AsyncExitStack) -> None:
        force = '/bin/sh -c "echo Welcome; printf \\"\\\\033[2Jfortune\\n\\" ; eval $SSH_ORIGINAL_COMMAND; echo bye"'
        server = await stack.enter_async_context(sshd(keys.folder / "sshd", client_key=keys.key, force=force))
        assert isinstance(await keys.check(server), Report)

    @pytest.mark.parametrize(
        ("force", "said"),
        [
            ("/bin/echo This account is not available.", "it said 'This account is not available.'"),
            ("/usr/bin/yes", "it sent something else ('y')"),
            ("/bin/true", "it said nothing"),
            ("/bin/sh -c 'head -c 200000 /dev/urandom'", "runs no script"),
            ("/bin/cat", "runs no script"),
        ],
        ids=["garbage", "endless", "silent", "noise", "echo"],
    )
    async def test_what_runs_no_script(self, keys: Keys, stack: AsyncExitStack, force: str, said: str) -> None:
        server = await stack.enter_async_context(sshd(keys.folder / "sshd", client_key=keys.key, force=force))
        found = await keys.check(server)
        assert isinstance(found, Unreached)
        assert isinstance(found.error, DumpError)
        if force == "/usr/bin/yes":
            said = "sent more than 4 MiB"
        assert said in found.summary
        assert found.summary.isprintable()

    async def test_a_dump_without_end(self, keys: Keys, stack: AsyncExitStack) -> None:
        force = '/bin/sh -c \'read -r line; echo "rouse-preflight 1 ${line#token=}"; echo "@file /a"; exec yes "|x"\''
        server = await stack.enter_async_context(sshd(keys.folder / "sshd", client_key=keys.key, force=force))
        found = await keys.check(server)
        assert isinstance(found, Unreached)
        assert "sent more than 4 MiB" in found.summary

    async def test_one_that_complains_much(self, keys: Keys, stack: AsyncExitStack) -> None:
        force = "/bin/sh -c 'head -c 3000000 /dev/zero | tr \"\\0\" x >&2; exec /bin/sh -s'"
        server = await stack.enter_async_context(sshd(keys.folder / "sshd", client_key=keys.key, force=force))
        assert isinstance(await keys.check(server), Report)

    async def test_one_that_never_finishes(self, keys: Keys, stack: AsyncExitStack) -> None:
        server = await stack.enter_async_context(
            sshd(keys.folder / "sshd", client_key=keys.key, force="/bin/sleep 1000")
        )
        found = await keys.check(server, seconds=3)
        assert isinstance(found, Unreached)
        assert "has not finished within 3 s" in found.summary

    async def test_another_host_key(self, keys: Keys, stack: AsyncExitStack) -> None:
        server = await stack.enter_async_context(sshd(keys.folder / "sshd", client_key=keys.key))
        other = Server(server.port, make_key(keys.folder / "other"))
        target = keys.target(other)
        with pytest.raises(HostKeyError, match="has another host key"):
            await gather(target, WANTED)
        keys.known_hosts.write_text("")
        with pytest.raises(HostKeyError, match="is not known here"):
            await gather(target, WANTED)
        assert keys.known_hosts.read_text() == "", "nothing is trusted by being seen"

    async def test_a_key_that_does_not_open(self, keys: Keys, stack: AsyncExitStack) -> None:
        server = await stack.enter_async_context(
            sshd(keys.folder / "sshd", client_key=make_key(keys.folder / "theirs"))
        )
        found = await keys.check(server)
        assert isinstance(found, Unreached)
        assert "refuses the log-in" in found.summary

    async def test_the_agent_stays_at_home(
        self, keys: Keys, stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        force = "/bin/sh -c 'test -n \"$SSH_AUTH_SOCK\" && exec echo forwarded; exec /bin/sh -s'"
        server = await stack.enter_async_context(sshd(keys.folder / "sshd", client_key=keys.key, force=force))
        target = keys.target(server)
        (keys.folder / "ssh_config").write_text("ForwardAgent yes\n")
        with agent(keys.folder / "agent.sock"):
            monkeypatch.setenv("SSH_AUTH_SOCK", str(keys.folder / "agent.sock"))
            lending = ["ForwardAgent=yes" if part == "ForwardAgent=no" else part for part in target.command]
            lent = subprocess.run(lending, check=False, capture_output=True, stdin=subprocess.DEVNULL, timeout=60)
            assert lent.stdout == b"forwarded\n", "the test would see it"
            found = await check(Machine(target, WANTED))
        assert isinstance(found, Report), found

    async def test_many_at_once(self, keys: Keys, stack: AsyncExitStack) -> None:
        good = await stack.enter_async_context(sshd(keys.folder / "good", client_key=keys.key))
        bad = await stack.enter_async_context(sshd(keys.folder / "bad", client_key=keys.key, force="/bin/echo no"))
        keys.target(good)
        keys.known_hosts.write_text(good.known + bad.known)
        config = keys.folder / "ssh_config"

        def machine(name: str, port: int) -> Machine:
            target = Target(
                name, "127.0.0.1", user="root", port=port, key=keys.key, known_hosts=keys.known_hosts, ssh_config=config
            )
            return Machine(target, WANTED)

        machines = [
            machine("one", good.port),
            machine("two", bad.port),
            machine("three", good.port),
            machine("four", 1),
        ]
        told: list[str] = []
        outcomes = await check_all(machines, on_outcome=lambda outcome: told.append(outcome.host))
        assert [outcome.host for outcome in outcomes] == ["one", "two", "three", "four"]
        assert sorted(told) == ["four", "one", "three", "two"]
        assert [isinstance(outcome, Report) for outcome in outcomes] == [True, False, True, False]
        assert "refused" in outcomes[3].summary

    async def test_the_command(self, keys: Keys, stack: AsyncExitStack) -> None:
        server = await stack.enter_async_context(sshd(keys.folder / "sshd", client_key=keys.key))
        keys.target(server)
        where = f"root@127.0.0.1:{server.port}"
        options = [
            "--key",
            str(keys.key),
            "--known-hosts",
            str(keys.known_hosts),
            "--ssh-config",
            f"{keys.folder}/ssh_config",
        ]
        report = keys.folder / "report.json"
        code, out, err = await command(keys.folder, where, "--json", "--output", str(report), *options)
        told = json.loads(out)
        assert code in {0, 1}, err
        assert told == json.loads(report.read_text())
        assert told["good"] is (code == 0)
        assert told["machines"][0]["host"] == where
        code, out, _ = await command(keys.folder, where, "root@127.0.0.1:1", "--quiet", *options)
        assert code == 3
        assert out.splitlines()[0].startswith(f"{where}: ")
        assert out.splitlines()[1].startswith("root@127.0.0.1:1: not reached: ")

    async def test_the_inventory_says_how_a_machine_is_reached(self, keys: Keys, stack: AsyncExitStack) -> None:
        server = await stack.enter_async_context(sshd(keys.folder / "sshd", client_key=keys.key))
        keys.target(server)
        (keys.folder / "hosts").mkdir()
        deploy = (
            f"[deploy]\naddress = '127.0.0.1'\nport = {server.port}\nuser = 'root'\nkey_file = '{keys.key}'\n"
            f"known_hosts = '{keys.folder}/seen'\n"
        )
        host = keys.folder / "hosts" / "attic.toml"
        host.write_text(f"[node]\nroles = ['expert']\n{deploy}")
        options = ["--json", "--ssh-config", f"{keys.folder}/ssh_config"]
        code, out, err = await command(keys.folder, "attic", *options)
        told = json.loads(out)["machines"][0]
        assert (code, told["host"], told["wanted"]) == (0, "attic", ["expert"]), err
        assert (keys.folder / "seen").read_text().startswith(f"[127.0.0.1]:{server.port} ssh-ed25519 ")
        (keys.folder / "seen").write_text("")
        host.write_text(f"{deploy}host_key = 'known'\n")
        code, out, _ = await command(keys.folder, "attic", *options)
        assert (code, json.loads(out)["machines"][0]["error"]["kind"]) == (3, "HostKeyError")


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.skipif(shutil.which("ssh") is None, reason="OpenSSH's client is not installed")
async def test_a_server_that_says_nothing(silent: int, tmp_path: Path) -> None:
    (tmp_path / "config").touch()
    target = Target("mute", "127.0.0.1", user="root", port=silent, ssh_config=tmp_path / "config")
    with pytest.raises(UnreachedError, match="has not finished within 2 s"):
        await gather(target, WANTED, seconds=2)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nobody"], 2, "there is no "),
        (["a@b@c"], 2, "expected user@host"),
        (["-oProxyCommand=x"], 2, "o"),
        (["root@-oProxyCommand=x"], 2, "expected a host name or an address"),
        (["--role", "cook"], 2, "no such role"),
        (["@local", "--output", "/proc/nothing/x"], 1, "can't be written"),
    ],
)
async def test_wrong_usage(tmp_path: Path, arguments: list[str], code: int, said: str) -> None:
    found, _, err = await command(tmp_path, *arguments)
    assert found == code, err
    assert said in " ".join(err.split())
    assert "Traceback" not in err


async def test_the_inventory_names_machines(tmp_path: Path) -> None:
    (tmp_path / "hosts").mkdir()
    (tmp_path / "hosts" / "attic.toml").write_text("[node]\nroles = ['expert']\n[gateway]\nport = 'x'\n")
    (tmp_path / "rouse.toml").write_text("[node]\nname = 'this-one'\n")
    code, _, err = await command(tmp_path, "attic")
    assert code == 2
    assert "attic.toml:4: gateway.port" in err
    code, _, err = await command(tmp_path, "atic")
    assert code == 2
    assert "there are attic" in " ".join(err.split())


async def command(config: Path, *arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "appliance", "--config-dir", str(config), "preflight", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={**{name: value for name, value in os.environ.items() if not name.startswith("ROUSE_")},
             "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "COLUMNS": "120"},
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), 100)
    return process.returncode or 0, out.decode(), err.decode()


@contextmanager
def agent(path: Path) -> Iterator[None]:
    """Run a real SSH agent."""
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL)
    try:
        for _ in range(300):
            if path.exists():
                break
            assert process.poll() is None
            time.sleep(0.1)
        else:
            raise AssertionError("the agent does not start")
        yield
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.parametrize("shell", ["dash", "bash", "busybox"])
def test_shells(tmp_path: Path, shell: str) -> None:
    """BusyBox with its own programs, as small systems have it, says the same as Debian's shell and coreutils."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    environment = {"PATH": os.environ["PATH"]}
    command = [shell, "-s"]
    if shell == "busybox":
        subprocess.run(["busybox", "--install", "-s", str(tmp_path)], check=True, timeout=60)
        for name in ("ip", "ping"):  # these are larger programs' business, and ours asks for more than they can
            (tmp_path / name).unlink(missing_ok=True)
        environment["PATH"] = f"{tmp_path}:{os.environ['PATH']}"
        command = ["busybox", "sh", "-s"]
    text = script(WANTED, "token")
    done = subprocess.run(command, input=text.encode(), capture_output=True, check=True, timeout=100, env=environment)
    dump = parse(done.stdout, "token")
    found = report_on(dump, WANTED, host="x", time=time.time(), seconds=0.0, moment=None)
    here = asyncio.run(check(Machine(Target("@local"), WANTED)))
    assert isinstance(here, Report)
    assert {result.id for result in found.results} == {result.id for result in here.results}
    assert lasting(found) == lasting(here)
    assert told_time(dump) == pytest.approx(time.time(), abs=100)
