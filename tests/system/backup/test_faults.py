"""What goes wrong: kills, a wrong password, a flipped bit, a disk that is not there."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from appliance.backup.errors import BusyError
from appliance.backup.place import opened
from appliance.backup.swap import MARK, Swap
from appliance.settings import load
from tests.killing import DISK_STEPS, Child, Say, die_at, preload
from tests.system.backup.conftest import ROOT, House

BIG = 48 << 20
PATIENCE_SECONDS = 60.0

preload(__name__)


@pytest.fixture
def started(house: House) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start a command as a process of its own; whatever it started is ended."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [*house.command, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()


def test_killed_in_the_middle_of_a_backup(house: House, started: Callable[..., subprocess.Popen[bytes]]) -> None:
    house.rouse("now")
    (house.state / "big").write_bytes(os.urandom(BIG))
    before = set(house.repository.rglob("*"))
    process = started("now")
    _until(lambda: bool({path for path in set(house.repository.rglob("*")) - before if "data" in path.parts}), process)
    restic = [child for child in psutil.Process(process.pid).children() if child.name() == "restic"]
    process.send_signal(signal.SIGKILL)
    process.wait()
    for child in restic:
        child.kill()
    for child in restic:
        psutil.wait_procs([child], timeout=PATIENCE_SECONDS)
    assert list((house.repository / "locks").iterdir()), "it should have been killed while it worked"

    made = json.loads(house.rouse("now", "--json").stdout)
    assert not (house.state / "backup" / "staging").exists()
    house.rouse("verify", "--all")
    folder = house.top / "copy"
    house.rouse("restore", made["snapshot"], "--to", str(folder))
    assert (folder / "state" / "big").read_bytes() == (house.state / "big").read_bytes()


def test_restic_of_a_killed_run_keeps_the_next_one_waiting(house: House) -> None:
    """The copy that it reads must not be taken away under it."""
    settings = load(house.config, {}, "attic").settings
    with opened(settings, new_password=True) as place:
        holder = subprocess.Popen(["sleep", "60"], pass_fds=place.restic.hold)
    try:
        with pytest.raises(BusyError), opened(settings):
            pass
        house.rouse("now", expect=5)
    finally:
        holder.kill()
        holder.wait()
    house.rouse("now")


def test_killed_in_the_middle_of_a_restore(house: House, started: Callable[..., subprocess.Popen[bytes]]) -> None:
    (house.state / "big").write_bytes(os.urandom(BIG))
    house.rouse("now")
    (house.state / "big").write_bytes(b"newer")
    before = house.tree()
    work = house.state.with_name("rouse.restore")
    process = started("restore", "--force")
    _until((work / "new" / "state").is_dir, process)
    children = psutil.Process(process.pid).children()
    process.send_signal(signal.SIGKILL)
    process.wait()
    for child in children:
        child.kill()
    psutil.wait_procs(children, timeout=PATIENCE_SECONDS)
    assert house.tree() == before
    house.rouse("restore", "--force")
    assert (house.state / "big").stat().st_size == BIG
    assert not work.exists()


def _swap(say: Say, state: Path, config: Path, step: int, exchange: bool) -> None:  # noqa: FBT001 - sent to a process
    if not exchange:
        from appliance.backup import swap as module  # noqa: PLC0415 - of this process alone

        module._exchanged = lambda one, other: one == other
    die_at(step, (*DISK_STEPS, (os, "rename"), (os, "mkdir")))
    swap = Swap(state, state / "models")
    decided = swap.decided()
    if decided is None:
        swap.begin()
        (swap.new / "state").mkdir()
        (swap.new / "state" / "which").write_text("new")
        (swap.new / "config").mkdir()
        (swap.new / "config" / "rouse.toml").write_text("new")
        swap.decide("0" * 64, before="rouse.before")
        decided = swap.decided()
    assert decided is not None
    swap.finish(decided, config_dir=config)
    say.send("done")


@pytest.mark.parametrize("exchange", [True, False], ids=["at one moment", "file system without exchange"])
def test_killed_at_every_step_of_the_swap(tmp_path: Path, exchange: bool) -> None:  # noqa: FBT001 - a parameter
    for step in range(1, 60):
        top = tmp_path / str(step)
        state, config = top / "var" / "rouse", top / "etc"
        (state / "models").mkdir(parents=True)
        (state / "models" / "small.gguf").write_text("weights")
        (state / "which").write_text("old")
        config.mkdir()
        (config / "rouse.toml").write_text("old")
        child = Child(_swap, state, config, step, exchange)
        killed = child.join()
        child.end()
        decided = Swap(state, state / "models").decided() is not None
        if exchange:
            # At every moment there is a whole state: the old one, or the new one.
            assert (state / "which").read_text() in {"old", "new"}
        if killed:
            if not decided and not (state / MARK).exists():
                assert (state / "which").read_text() == "old"
            # What was decided is finished; what was not is begun again.
            if decided or not (state / MARK).exists():
                again = Child(_swap, state, config, 0, exchange)
                assert again.hear() == "done"
                again.join()
                again.end()
        assert (state / "which").read_text() == "new"
        assert (config / "rouse.toml").read_text() == "new"
        assert (state / "models" / "small.gguf").read_text() == "weights"
        if not killed:
            assert (top / "var" / "rouse.before" / "old" / "state" / "which").read_text() == "old"
            return
    pytest.fail("it takes more steps than were tried")


def test_wrong_password(house: House) -> None:
    house.rouse("now")
    (house.state / "secrets" / "backup.password").write_text("not-this-one\n")
    for command in (("now",), ("list",), ("verify",), ("restore", "--force"), ("init",)):
        said = house.rouse(*command, expect=1)
        assert "password does not open it" in said.stderr
        assert "not-this-one" not in said.output


def test_a_flipped_bit_is_found(house: House) -> None:
    (house.state / "big").write_bytes(os.urandom(1 << 20))
    made = json.loads(house.rouse("now", "--json").stdout)
    before = house.tree()
    pack = max((house.repository / "data").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
    content = bytearray(pack.read_bytes())
    content[len(content) // 2] ^= 0x10
    pack.chmod(0o600)
    pack.write_bytes(content)
    found = house.rouse("verify", "--all", expect=3)
    assert "new backup to another place" in found.stderr
    told = json.loads(house.rouse("list", "--json").stdout)["last"]
    assert told["verified"] == 0
    assert told["verification_attempted"] > 0
    house.rouse("restore", made["snapshot"], "--force", expect=1)
    assert house.tree() == before
    assert not house.state.with_name("rouse.restore").exists()


def test_a_disk_that_is_not_mounted_gets_no_new_repository(house: House) -> None:
    house.rouse("now")
    house.repository.rename(house.top / "elsewhere")
    said = house.rouse("now", expect=1)
    assert "Is its disk mounted?" in said.stderr
    assert not house.repository.exists()
    told = json.loads((house.state / "backup" / "record.json").read_text())
    assert told["succeeded"] < told["attempted"]


def test_a_full_disk_is_one_sentence(house: House) -> None:
    house.settings(repository="/dev/null/repository")
    said = house.rouse("now", expect=1)
    assert said.stderr.count("\n") <= 3
    assert "Traceback" not in said.output


def test_who_uses_the_state_is_asked_to_stop(house: House) -> None:
    house.rouse("now")
    user = subprocess.Popen(["sleep", "60"], cwd=house.state)
    try:
        said = house.rouse("restore", "--force", expect=4)
        assert f"process {user.pid}" in said.stderr
    finally:
        user.kill()
        user.wait()


def test_a_manifest_that_names_other_places_is_refused(house: House) -> None:
    """Whoever has the password could make a backup by hand; it must not reach beyond its folder."""
    house.rouse("now")
    settings = load(house.config, {}, "attic").settings
    with opened(settings) as place:
        fake = house.top / "fake"
        (fake / "state").mkdir(parents=True)
        entry = {"path": "state/../../escaped", "kind": "folder", "mode": 511, "user": "root", "group": "root"}
        manifest = {
            "node": "attic", "roles": ["hub"], "rouse": "1", "made": "2026-01-01T00:00:00Z",
            "entries": [{**entry, "path": "state"}, entry],
        }  # fmt: skip
        (fake / "manifest.json").write_text(json.dumps(manifest))
        place.restic.run("backup", "--host", "attic", "--tag", "rouse", "state", "manifest.json", folder=fake)
    said = house.rouse("restore", "--force", expect=3)
    assert "is no path of a backup" in said.stderr
    shutil.rmtree(fake / "state")


def _until(wanted: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not wanted():
        assert process.poll() is None, "it ended before it was where it should be killed"
        assert time.monotonic() < deadline, "it does not come to where it should be killed"
        time.sleep(0.005)
