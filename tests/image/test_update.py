"""Updates in a virtual machine: refused, interrupted, good, broken in two ways, and back by hand.

The tests are one story and go on where the one before ended.
"""

import asyncio
import json
import shutil
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio

from image_build.machine import Machine
from tests.image import updating
from tests.image.conftest import BOOT_SECONDS, WORK, Image, Report, free_port
from tests.image.publisher import ADDRESS, Publisher
from tests.image.releases import Releases, make_releases, versions
from tests.image.updating import UPDATE_SECONDS, ask, kernels, put, told, version, wait_restarted, wait_told

pytestmark = [pytest.mark.image, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(3 * 3600)]

PORT = free_port()
MOST_EXPOSED = 2.5


@dataclass
class Story:
    """A machine, who publishes for it, and what it should remember."""

    machine: Machine
    publisher: Publisher
    releases: Releases
    numbers: dict[str, str]
    identity: str = ""
    history: list[tuple[str, str]] = field(default_factory=list)
    """Versions that it was updated to, and how that ended."""

    async def keeps_everything(self) -> None:
        """Check that nothing of the machine's own was lost."""
        assert await self.machine.run("cat /etc/machine-id") == self.identity
        assert await self.machine.run("cat /var/lib/kept") == "kept\n"
        assert "attic" in await self.machine.run("cat /etc/rouse/rouse.toml")
        assert (await self.machine.run("cat /etc/hostname")).strip() == "attic-computer"
        lines = (await self.machine.run("cat /var/lib/rouse/updates/history.jsonl")).splitlines()
        said = [json.loads(line) for line in lines if line]
        assert [(entry["version"], entry["result"]) for entry in said] == self.history

    async def refuses(self, why: str, **more: Any) -> None:
        """Ask for a version that the node does not install."""
        await ask(self.machine, "install", **more)
        said = await wait_told(self.machine, {"failed"})
        assert why in said["error"]


@pytest.fixture(scope="module")
def releases(image: Image) -> Releases:
    return make_releases(image)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def story(image: Image, releases: Releases) -> AsyncIterator[Story]:
    folder = WORK / "test" / "update"
    shutil.rmtree(folder, ignore_errors=True)
    async with Publisher(releases.good).serving() as publisher:
        hardware = updating.hardware(port=PORT, publisher=publisher.port)
        async with image.machine(folder, hardware) as machine:
            await machine.wait_up(BOOT_SECONDS)
            await put(machine, "/var/lib/kept", b"kept\n")
            await put(machine, "/etc/hostname", b"attic-computer\n")
            await updating.configure(machine, releases)
            identity = await machine.run("cat /etc/machine-id")
            await wait_told(machine, {"idle"})
            yield Story(machine, publisher, releases, versions(image), identity)


async def test_a_machine_that_was_never_updated_says_what_it_runs(story: Story, image: Image) -> None:
    said = await told(story.machine)
    assert said["installed"] == image.version
    assert "previous" not in said


async def test_a_wrong_signature_is_refused(story: Story) -> None:
    sums = (story.releases.good / "SHA256SUMS").read_bytes()
    story.publisher.lies = {"SHA256SUMS": sums + b"0" * 64 + b"  extra\n"}
    await story.refuses("signature")
    assert {asked.name for asked in story.publisher.asked} <= {"SHA256SUMS", "SHA256SUMS.gpg"}


async def test_a_wrong_hash_is_refused(story: Story) -> None:
    story.publisher.lies = {".efi": b"MZ" + bytes(1 << 20), ".root": b"no root"}
    await story.refuses("SHA-256")
    story.publisher.lies = {}
    assert len(await kernels(story.machine)) == 1


async def test_a_download_goes_on_where_it_broke_off(story: Story, image: Image, report: Report) -> None:
    """The connection breaks, then the daemon dies; no byte is sent twice, and nobody has to ask again."""
    whole = next(story.releases.good.glob("*.root")).stat().st_size
    story.publisher.asked.clear()
    story.publisher.cut_after = {".root": 40 << 20}
    await ask(story.machine, "install")
    part = "/var/lib/rouse/updates/*/*.root.part"
    await story.machine.run(
        f"until [ $(stat -c %s {part} 2> /dev/null || echo 0) -gt {60 << 20} ]; do sleep 0.2; done", 900
    )
    await story.machine.run("systemctl kill -s KILL rouse-node.service")
    kept = int(await story.machine.run(f"stat -c %s {part}"))
    await story.machine.run("until systemctl is-active --quiet rouse-node.service; do sleep 1; done", 900)
    assert await version(story.machine) == image.version
    stop, started = asyncio.Event(), time.monotonic()
    asking = asyncio.create_task(updating.downtime(PORT, stop))

    await wait_restarted(story.machine, story.numbers["good"])

    report.rows["update, from asking to the new version up, s"] = round(time.monotonic() - started, 1)
    asked = [asked for asked in story.publisher.asked if asked.name.endswith(".root")]
    assert [one.begin for one in asked] == [0, 40 << 20, kept]
    assert asked[-1].sent == whole - kept
    said = await wait_told(story.machine, {"idle"})
    stop.set()
    longest = await asking
    assert longest > 5
    report.rows["update downtime (no SSH), s"] = round(longest, 1)
    assert said["installed"] == story.numbers["good"]
    assert said["previous"] == image.version


async def test_the_new_version_is_blessed_and_has_kept_everything(story: Story, image: Image) -> None:
    story.history.append((story.numbers["good"], "installed"))
    await story.keeps_everything()
    names = {f"rouse_{image.version}.efi", f"rouse_{story.numbers['good']}.efi"}
    assert set(await kernels(story.machine)) == names
    assert (await story.machine.run("systemctl list-units --failed --plain --no-legend")).strip() == ""
    assert (await story.machine.run("cat /var/lib/rouse-image/etc/last")).strip() == story.numbers["good"]
    assert (await story.machine.run("ls -A /var/lib/rouse-image/update/files 2>/dev/null || true")).strip() == ""


async def test_an_older_version_wants_to_be_asked_for(story: Story, image: Image) -> None:
    story.publisher.folder = story.releases.first
    await story.refuses("older", version=image.version)


@pytest.mark.parametrize("name", ["without_init", "unhealthy"])
async def test_a_broken_version_goes_away_by_itself(story: Story, report: Report, name: str) -> None:
    number = story.numbers[name]
    story.publisher.folder = getattr(story.releases, name)
    started = time.monotonic()
    await ask(story.machine, "install")
    # That it restarts is said for some seconds only, which a slow question may miss.
    await wait_told(story.machine, {"rebooting", "rolled_back"}, version=number)
    await wait_restarted(story.machine, story.numbers["good"])
    said = await wait_told(story.machine, {"rolled_back"}, version=number)
    report.rows[f"update to a version that is broken ({name}), until the old one is up again, s"] = round(
        time.monotonic() - started, 1
    )
    assert said["installed"] == story.numbers["good"]
    if name == "unhealthy":
        assert "rouse-" in said["error"]
        assert ".service is" in said["error"]
    assert f"rouse_{number}+0-3.efi" in await kernels(story.machine)
    story.history.append((number, "rolled_back"))
    await story.keeps_everything()


async def test_there_is_no_going_back_to_what_never_came_up(story: Story) -> None:
    await ask(story.machine, "rollback")
    said = await wait_told(story.machine, {"failed"})
    assert "no earlier version to go back to" in said["error"]


async def test_down_and_up_again_by_hand(story: Story, image: Image) -> None:
    story.publisher.folder = story.releases.first
    await ask(story.machine, "install", version=image.version, downgrade=True)
    await wait_restarted(story.machine, image.version)
    await wait_told(story.machine, {"idle"})
    story.history.append((image.version, "installed"))
    await story.keeps_everything()

    await ask(story.machine, "rollback")
    await wait_restarted(story.machine, story.numbers["good"])
    await wait_told(story.machine, {"idle"})
    story.history.append((story.numbers["good"], "went_back"))
    await story.keeps_everything()
    assert f"rouse_{story.numbers['good']}.efi" in await kernels(story.machine)


async def test_exposure_of_the_updates_units(story: Story, report: Report) -> None:
    units = ("rouse-healthy", "rouse-unhealthy", "rouse-update-back", "rouse-update@1")
    for unit in units:
        said = await story.machine.run(f"systemd-analyze security --no-pager {unit}.service | tail -n 1", 120)
        print(said)  # noqa: T201 - it is what people look for
        score = float(said.split("for ")[1].split(":")[1].split()[0])
        report.rows[f"exposure of {unit}.service"] = score
        assert score <= MOST_EXPOSED, said


async def test_the_command_line_tells_it_all(story: Story) -> None:
    said = json.loads(await story.machine.run("rouse update status --json", 600))
    assert said["attic"]["installed"] == story.numbers["good"]
    text = await story.machine.run("rouse update history", 600)
    assert "rolled back" in text
    assert "went back" in text


async def test_root_installs_without_the_daemon(story: Story, image: Image) -> None:
    story.publisher.folder = story.releases.first
    command = f"rouse update install --from http://{ADDRESS} --downgrade {image.version}"
    said = await story.machine.run(command, UPDATE_SECONDS)
    assert "is in the other slot and starts next" in said
    names = {f"rouse_{image.version}+3-0.efi", f"rouse_{story.numbers['good']}+0.efi"}
    assert set(await kernels(story.machine)) == names
