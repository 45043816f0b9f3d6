"""What root does: systemd-sysupdate is played by a program; signature, hashes, copies and names are real."""

import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.updates import root, sysupdate
from appliance.updates.errors import InstallError, RefusedError, SignatureError, SpaceError, UpdateError
from appliance.updates.image import ImagePaths
from appliance.updates.installing import BASELINE, BEFORE, OUTCOME, RootPart
from appliance.updates.records import Baseline, Before, Outcome, read, write
from appliance.updates.slots import Slots
from tests.unit.updates.publisher import SLOTS, Publisher, part

SYSUPDATE = """#!{python}
import os, socket, sys
open({log!r}, "a").write(" ".join(sys.argv[1:]) + "\\n")
if "update" in sys.argv:
    version = sys.argv[-1]
    told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    told.sendto(b"STATUS=x\\nX_SYSUPDATE_PROGRESS=50\\n", os.environ["NOTIFY_SOCKET"])
    open(f"{kernels}/rouse_{{version}}+3-0.efi", "wb").write(open(f"{files}/rouse_{{version}}.efi", "rb").read())
else:
    for name in os.listdir({kernels!r}):
        if not name.startswith("rouse_1.0"):
            os.unlink(f"{kernels}/" + name)
"""


class Machine:
    """The root part of a machine that runs 1.0."""

    def __init__(self, paths: ImagePaths, publisher: Publisher, folder: Path) -> None:
        self.paths = paths
        self.publisher = publisher
        self.said: list[tuple[float, str]] = []
        self.slots = SLOTS
        self.log = folder / "sysupdate.log"
        self.program = folder / "sysupdate"
        self.program.write_text(
            SYSUPDATE.format(
                python=sys.executable, log=str(self.log), kernels=str(paths.kernels), files=str(paths.files)
            )
        )
        self.program.chmod(0o755)

    def stage(self, version: str) -> Path:
        target = self.paths.staged / version
        target.mkdir()
        for path in self.publisher.folder.iterdir():
            if path.name.startswith(("SHA256SUMS", f"rouse_{version}_")):
                shutil.copy(path, target / path.name)
        return target

    def part(self) -> RootPart:
        return RootPart(self.paths, lambda share, text: self.said.append((share, text)), lambda: self.slots)

    def install(self, version: str) -> None:
        parts = frozenset({part(version, "root"), part(version, "verity")})
        self.slots = replace(self.slots, parts=parts)
        self.part().install(version)

    @property
    def kernels(self) -> list[str]:
        return sorted(path.name for path in self.paths.kernels.iterdir())

    @property
    def outcome(self) -> Outcome:
        found = read(self.paths.own / OUTCOME, Outcome)
        assert found is not None
        return found


@pytest.fixture
def machine(paths: ImagePaths, publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine(paths, publisher, tmp_path)
    monkeypatch.setattr(sysupdate, "PROGRAM", str(machine.program))
    return machine


def test_a_good_version_is_installed(machine: Machine) -> None:
    machine.publisher.publish("2.0")
    machine.stage("2.0")
    write(machine.paths.staged / BASELINE, Baseline(experts=["small"], broker=True))

    machine.install("2.0")

    assert machine.kernels == ["rouse_1.0.efi", "rouse_2.0+3-0.efi"]
    assert machine.outcome == Outcome(version="2.0", ok=True)
    before = read(machine.paths.own / BEFORE, Before)
    assert before is not None
    assert before.version == "2.0"
    assert before.baseline.experts == ["small"]
    assert machine.log.read_text().splitlines() == [
        "--verify=no --no-pager --instances-max=1 vacuum",
        "--verify=no --no-pager update 2.0",
    ]
    assert not machine.paths.files.exists()
    shares = [share for share, _ in machine.said]
    assert shares == sorted(shares)
    assert (0.7, "writing the other slot") in machine.said


def test_an_older_version_comes_first_although_it_is_older(machine: Machine) -> None:
    machine.publisher.publish("0.9")
    machine.stage("0.9")
    machine.install("0.9")
    assert machine.kernels == ["rouse_0.9+3-0.efi", "rouse_1.0+0.efi"]


def refused(machine: Machine, version: str, kind: type[UpdateError], match: str) -> None:
    with pytest.raises(kind, match=match):
        machine.install(version)
    assert machine.kernels == ["rouse_1.0.efi"]
    assert not machine.outcome.ok
    assert not machine.log.exists()
    assert not machine.paths.files.exists()


def test_a_file_that_was_changed_is_refused(machine: Machine) -> None:
    machine.publisher.publish("2.0")
    root_file = next(machine.stage("2.0").glob("*.root"))
    content = bytearray(root_file.read_bytes())
    content[1000] ^= 1
    root_file.write_bytes(content)
    refused(machine, "2.0", SignatureError, "is not what was signed")


def test_a_list_that_was_changed_is_refused(machine: Machine) -> None:
    machine.publisher.publish("2.0")
    sums = machine.stage("2.0") / "SHA256SUMS"
    sums.write_text(sums.read_text() + f"{'0' * 64}  extra\n")
    refused(machine, "2.0", SignatureError, "the signature of SHA256SUMS is wrong")


def test_another_publisher_is_refused(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> None:
    stranger = Publisher(tmp_path_factory.mktemp("s"))
    try:
        stranger.publish("2.0")
        machine.publisher = stranger
        machine.stage("2.0")
        refused(machine, "2.0", SignatureError, "the signature of SHA256SUMS is wrong")
    finally:
        stranger.close()


def test_without_a_signature_or_keys_nothing_is_used(machine: Machine) -> None:
    machine.publisher.publish("2.0")
    (machine.stage("2.0") / "SHA256SUMS.gpg").unlink()
    refused(machine, "2.0", InstallError, "SHA256SUMS.gpg can't be copied: No such file")
    machine.paths = replace(machine.paths, keys=(machine.paths.staged / "none",))
    shutil.rmtree(machine.paths.staged / "2.0")
    machine.stage("2.0")
    refused(machine, "2.0", SignatureError, "no keys to verify updates with")


def test_a_link_in_a_file_s_place_is_not_followed(machine: Machine, tmp_path: Path) -> None:
    machine.publisher.publish("2.0")
    kernel = next(machine.stage("2.0").glob("*.efi"))
    kernel.rename(tmp_path / "elsewhere")
    kernel.symlink_to(tmp_path / "elsewhere")
    refused(machine, "2.0", InstallError, "is no file")


def test_a_pipe_in_a_file_s_place_does_not_hang(machine: Machine) -> None:
    machine.publisher.publish("2.0")
    sums = machine.stage("2.0") / "SHA256SUMS"
    sums.unlink()
    os.mkfifo(sums)
    refused(machine, "2.0", InstallError, "is no file")


def test_what_does_not_fit_into_the_slot_is_refused(machine: Machine) -> None:
    machine.publisher.publish("2.0")
    machine.stage("2.0")
    machine.slots = Slots(1000, 1 << 16, frozenset({"1.0"}), frozenset())
    refused(machine, "2.0", SpaceError, "its place on the disk has 1000")


@pytest.mark.parametrize("version", ["1.0", "../2.0", "", "2.0 --reboot"])
def test_what_can_t_be_installed_is_refused(machine: Machine, version: str) -> None:
    with pytest.raises(RefusedError):
        machine.part().install(version)


def test_a_version_that_was_signed_under_another_name_is_refused(machine: Machine) -> None:
    machine.publisher.publish("2.0")
    machine.stage("2.0").rename(machine.paths.staged / "3.0")
    refused(machine, "3.0", InstallError, "is not version 3.0")


def test_sysupdate_s_word_alone_does_not_count(machine: Machine) -> None:
    machine.publisher.publish("2.0")
    machine.stage("2.0")
    machine.program.write_text("#!/bin/sh\nexit 0\n")
    with pytest.raises(InstallError, match="the kernel is not there"):
        machine.install("2.0")


def test_partitions_that_do_not_come_are_not_waited_for_for_ever(machine: Machine) -> None:
    machine.publisher.publish("2.0")
    machine.stage("2.0")
    times = iter((0.0, 100.0))
    part = replace(machine.part(), monotonic=lambda: next(times))
    with pytest.raises(InstallError, match="the partitions are not there"):
        part.install("2.0")
    assert machine.kernels == ["rouse_1.0.efi"], "nothing that is not whole may start next"


def test_sysupdate_s_own_error_is_passed_on(machine: Machine) -> None:
    machine.publisher.publish("2.0")
    machine.stage("2.0")
    machine.program.write_text("#!/bin/sh\necho 'No space left on ESP' >&2\nexit 1\n")
    with pytest.raises(InstallError, match="ended with 1: No space left on ESP"):
        machine.install("2.0")
    assert "No space left on ESP" in machine.outcome.error


def test_leftovers_of_a_power_cut_do_not_fill_the_boot_partition(machine: Machine) -> None:
    (machine.paths.kernels / ".#sysupdaterouse_2.0.efi1").write_bytes(b"half")
    machine.publisher.publish("2.0")
    machine.stage("2.0")
    machine.install("2.0")
    assert machine.kernels == ["rouse_1.0.efi", "rouse_2.0+3-0.efi"]


def test_one_at_a_time(machine: Machine) -> None:
    first, second = machine.part(), machine.part()
    with first._alone(), pytest.raises(RefusedError, match="is being installed at this moment"):
        second.install("2.0")


def test_going_back(machine: Machine) -> None:
    (machine.paths.kernels / "rouse_0.9.efi").write_bytes(b"MZ")
    machine.slots = replace(SLOTS, versions=frozenset({"1.0", "0.9"}))
    with pytest.raises(RefusedError, match="no earlier version to go back to"):
        machine.part().go_back()
    (machine.paths.good / "0.9").mkdir()
    (machine.paths.good / "0.9" / "good").touch()

    assert machine.part().go_back() == "0.9"
    assert machine.kernels == ["rouse_0.9+3-0.efi", "rouse_1.0+0.efi"]


def test_the_program(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    assert root.main(["worth-a-restart"], paths=machine.paths) == 1
    (machine.paths.kernels / "rouse_1.0.efi").rename(machine.paths.kernels / "rouse_1.0+2-1.efi")
    assert root.main(["worth-a-restart"], paths=machine.paths) == 0
    machine.paths.healthy.parent.mkdir()
    machine.paths.healthy.touch()
    assert root.main(["worth-a-restart"], paths=machine.paths) == 1
    assert root.main(["dance"], paths=machine.paths) == 2
    assert root.main(["install", "1.0"], paths=machine.paths) == 1
    capsys.readouterr()
