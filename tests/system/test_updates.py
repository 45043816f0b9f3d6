"""A node's updates on a real broker and a real message bus, from a real publisher; the root part is played.

systemd's `rouse-update@VERSION.service` is a program here that leaves the word that the root part leaves.
"""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from appliance.bus.client import Bus
from appliance.bus.topics import NODE_UPDATE, UPDATE_COMMAND
from appliance.bus.update_messages import NodeUpdate, UpdateCommand
from appliance.http_server import http_runner
from appliance.settings.updates import UpdateSettings
from appliance.updates.errors import InstallError
from appliance.updates.host import UnitReport
from appliance.updates.image import ImagePaths, architecture
from appliance.updates.memory import Entry
from appliance.updates.records import Baseline, Failure, Outcome, write
from appliance.updates.service import Rhythm, UpdateService
from appliance.updates.slots import Slots
from tests.system.conftest import RunningBroker
from tests.unit.updates.publisher import SLOTS, Publisher, missing_programs

pytestmark = [
    pytest.mark.broker,
    pytest.mark.skipif(bool(missing_programs()), reason="GnuPG is not installed: apt-get install gpg gpgv"),
]

NODE = "attic"
QUICK = Rhythm(tick=0.05, look=0.02)
NOON = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)


@dataclass
class PlayedMachine:
    """The machine that the service runs on; a restart is up to the test."""

    paths: ImagePaths
    idle_seconds: float = 1000.0
    booted: str = "1"
    outcome: Outcome | None = None
    allowed: bool = True
    complete: bool = True
    started: list[str] = field(default_factory=list)
    restarts: int = 0
    restarted: asyncio.Event = field(default_factory=asyncio.Event)

    async def idle(self) -> float:
        return self.idle_seconds

    async def start(self, unit: str) -> None:
        if not self.allowed:
            raise InstallError("polkit does not allow it")
        self.started.append(unit)
        (self.paths.own / "outcome.json").unlink(missing_ok=True)
        if self.outcome is not None:
            write(self.paths.own / "outcome.json", self.outcome)

    async def unit(self, unit: str) -> UnitReport:
        if unit == "boot-complete.target":
            return UnitReport("active" if self.complete else "inactive", "", "")
        return UnitReport("inactive", "success", "0.900 writing the other slot")

    async def boot(self) -> str:
        return self.booted

    async def restart(self) -> None:
        self.restarts += 1
        self.restarted.set()

    async def baseline(self) -> Baseline:
        return Baseline(experts=["small"], broker=True)


class House:
    """A node, a publisher with a web server, and somebody who listens."""

    def __init__(self, folder: Path, broker: RunningBroker, publisher: Publisher) -> None:
        self.publisher = publisher
        self.paths = ImagePaths(
            keys=(publisher.keys,), own=folder / "own", staged=folder / "staged", good=folder / "good"
        )
        self.paths.own.mkdir()
        self.machine = PlayedMachine(self.paths)
        self.heard: list[NodeUpdate] = []
        self.asked: list[tuple[str, int]] = []
        self.cut: int | None = None
        self.url = ""
        self.slots = SLOTS
        self.installed = "1.0"
        self.now = NOON
        self._broker = broker
        self._sent = 0
        self._node = AsyncExitStack()
        self.service: UpdateService | None = None
        self._observer = Bus(broker.connection("homeassistant"), identifier="observer")
        self._observer.subscribe(NODE_UPDATE, self._hear)

    async def _hear(self, update: NodeUpdate | None, _levels: object) -> None:
        if update is not None:
            self.heard.append(update)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        begin = request.http_range.start or 0
        name = request.match_info["name"]
        self.asked.append((name, begin))
        content = (self.publisher.folder / name).read_bytes()
        headers = {"Content-Length": str(len(content) - begin), "ETag": f'"{name}"'}
        if begin:
            headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
        response = web.StreamResponse(status=206 if begin else 200, headers=headers)
        await response.prepare(request)
        if self.cut is not None and name.endswith(".root"):
            await response.write(content[begin : begin + self.cut])
            assert request.transport is not None
            request.transport.abort()
            self.cut = None
        else:
            await response.write(content[begin:])
        return response

    @asynccontextmanager
    async def open(self) -> AsyncIterator["House"]:
        application = web.Application()
        application.router.add_get("/stable/{name}", self._answer)
        runner = http_runner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            async with self._observer:
                await self._observer.wait_connected(10)
                yield self
        finally:
            await self.stop()
            await runner.cleanup()

    async def start(self, **settings: Any) -> None:
        """Start the node daemon's part of updates, as after a boot or a restart of the daemon."""
        wanted = {"source": self.url, "channel": "stable", "quiet": 10.0, "check_interval": 3600.0, **settings}
        bus = Bus(self._broker.connection(), identifier="node")
        self.service = UpdateService(
            node=NODE,
            installed=self.installed,
            architecture=architecture(),
            settings=UpdateSettings.model_validate(wanted),
            bus=bus,
            host=self.machine,
            paths=self.paths,
            slots=lambda: self.slots,
            now=lambda: self.now,
            rhythm=QUICK,
        )
        await self._node.enter_async_context(bus)
        await bus.wait_connected(10)
        task = asyncio.create_task(self.service.run())

        async def end() -> None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        self._node.push_async_callback(end)

    async def stop(self) -> None:
        await self._node.aclose()

    async def boot(self, version: str, **settings: Any) -> None:
        """Restart the machine, into this version."""
        await self.stop()
        self.machine.booted += "1"
        self.machine.restarted.clear()
        self.installed = version
        await self.start(**settings)

    async def ask(self, action: str, **more: Any) -> str:
        self._sent += 1
        command = UpdateCommand.model_validate({"id": f"command-{self._sent}", "action": action, **more})
        await self._observer.publish(UPDATE_COMMAND, command, node=NODE)
        return command.id

    async def until(self, condition: Callable[[NodeUpdate], bool], what: str) -> NodeUpdate:
        """Wait until the last word fits."""
        try:
            async with asyncio.timeout(30):
                while not self.heard or not condition(self.heard[-1]):
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"not seen: {what}; there is {self.heard[-5:]}") from None
        return self.heard[-1]

    async def until_state(self, state: str, command: str | None = None) -> NodeUpdate:
        def fits(said: NodeUpdate) -> bool:
            return said.state == state and (command is None or said.command == command)

        return await self.until(fits, f"{state} after {command}")

    def history(self) -> list[Entry]:
        lines = (self.paths.staged / "history.jsonl").read_text().splitlines()
        return [Entry.model_validate(json.loads(line)) for line in lines]


@pytest.fixture(scope="module")
def publishing(tmp_path_factory: pytest.TempPathFactory) -> Any:
    publisher = Publisher(tmp_path_factory.mktemp("p"))
    yield publisher
    publisher.close()


@pytest.fixture
async def house(tmp_path: Path, broker: RunningBroker, publishing: Publisher) -> AsyncIterator[House]:
    for path in publishing.folder.iterdir():
        path.unlink()
    async with House(tmp_path, broker, publishing).open() as house:
        yield house


def installs(house: House, version: str) -> None:
    house.machine.outcome = Outcome(version=version, ok=True)


async def test_a_new_version_is_found_and_waits_to_be_asked_for(house: House) -> None:
    house.publisher.publish("1.0", "1.1", "2.0~rc1")
    await house.start(notes_url="https://example.org/notes/{version}")
    said = await house.until(lambda said: said.latest is not None and said.state == "idle", "a version")
    assert said.latest == "2.0~rc1"
    assert said.notes_url == "https://example.org/notes/2.0~rc1"
    assert said.detail == "version 2.0~rc1 can be installed"
    assert said.checked == NOON.timestamp()
    assert house.machine.started == []
    assert {name for name, _ in house.asked} == {"SHA256SUMS", "SHA256SUMS.gpg"}


async def test_an_update_from_the_question_to_the_healthy_boot(house: House) -> None:
    house.publisher.publish("2.0")
    installs(house, "2.0")
    await house.start()
    command = await house.ask("install")
    await asyncio.wait_for(house.machine.restarted.wait(), 30)
    said = await house.until_state("rebooting", command)
    assert (said.version, said.progress) == ("2.0", 0.9)
    assert house.machine.started == ["rouse-update@2.0.service"]
    assert house.service is not None
    assert house.service.running
    states = list(dict.fromkeys(said.state for said in house.heard))
    assert states[-4:] == ["checking", "downloading", "installing", "rebooting"]
    shares = [said.progress for said in house.heard if said.progress is not None]
    assert shares == sorted(shares)
    for name in ("root", "verity", "efi"):
        (file,) = (house.paths.staged / "2.0").glob(f"*.{name}")
        assert file.read_bytes() == (house.publisher.folder / file.name).read_bytes()

    house.machine.complete = False
    await house.boot("2.0")
    await house.until_state("verifying")
    house.machine.complete = True
    said = await house.until_state("idle")
    assert (said.installed, said.detail) == ("2.0", "version 2.0 is up and healthy")
    assert [(entry.former, entry.version, entry.result) for entry in house.history()] == [("1.0", "2.0", "installed")]
    assert not (house.paths.staged / "2.0").exists()


async def test_a_version_that_does_not_come_up_is_told_and_not_tried_again_by_itself(house: House) -> None:
    house.publisher.publish("2.0")
    installs(house, "2.0")
    automatic = {"install": "automatic", "hours": "00:00-00:00"}
    await house.start(**automatic)
    await asyncio.wait_for(house.machine.restarted.wait(), 30)
    write(house.paths.own / "failure.json", Failure(version="2.0", reason="the expert small is gone"))

    await house.boot("1.0", **automatic)
    said = await house.until_state("rolled_back")
    assert said.error == "version 2.0 did not come up healthy: the expert small is gone"
    assert (said.installed, said.version) == ("1.0", "2.0")
    command = await house.ask("check")
    said = await house.until_state("idle", command)
    assert "did not work here" in said.detail
    assert house.machine.restarts == 1

    await house.ask("install", version="2.0")
    await asyncio.wait_for(house.machine.restarted.wait(), 30)
    assert [entry.result for entry in house.history()] == ["rolled_back"]


async def test_nothing_is_installed_while_the_experts_are_used(house: House) -> None:
    house.publisher.publish("2.0")
    installs(house, "2.0")
    house.machine.idle_seconds = 0.0
    await house.start()
    await house.ask("install")
    said = await house.until(lambda said: said.state == "installing" and "once nobody" in said.detail, "it waits")
    house.machine.idle_seconds = 9.0
    await asyncio.sleep(0.2)
    assert house.machine.started == []
    assert said.detail == "it is installed once nobody has used the experts for 10 s"
    house.machine.idle_seconds = 11.0
    await asyncio.wait_for(house.machine.restarted.wait(), 30)


async def test_nothing_is_installed_by_itself_outside_of_the_hours(house: House) -> None:
    house.publisher.publish("2.0")
    installs(house, "2.0")
    await house.start(install="automatic", hours="02:00-05:00")
    await house.until(lambda said: said.latest == "2.0" and said.state == "idle", "it is found")
    await asyncio.sleep(0.3)
    assert house.machine.started == []
    house.now = NOON.replace(hour=3)
    await asyncio.wait_for(house.machine.restarted.wait(), 30)


async def test_a_download_goes_on_where_it_broke_off_and_after_a_restart(house: House) -> None:
    house.publisher.publish("2.0", size=3_000_000)
    installs(house, "2.0")
    house.cut = 1_000_000
    house.machine.idle_seconds = 0.0
    await house.start()
    await house.ask("install")
    await house.until_state("installing")
    assert [begin for name, begin in house.asked if name.endswith(".root")] == [0, 1_000_000]

    await house.stop()  # the daemon dies while it waits
    house.asked.clear()
    house.machine.idle_seconds = 100.0
    await house.start()
    await asyncio.wait_for(house.machine.restarted.wait(), 30)
    assert {name for name, _ in house.asked} == {"SHA256SUMS", "SHA256SUMS.gpg"}


async def refused(house: House, match: str, **more: Any) -> None:
    command = await house.ask("install", **more)
    said = await house.until_state("failed", command)
    assert said.error is not None
    assert match in said.error
    assert house.machine.started == []


async def test_what_is_refused(house: House) -> None:
    house.publisher.publish("0.9", "1.0", "2.0")
    await house.start()
    await house.until_state("idle")
    await refused(house, "version 0.9 is older than 1.0", version="0.9")
    await refused(house, "version 1.0 is what runs", version="1.0")
    await refused(house, "version 7 is not published for this machine (there are: 2.0, 1.0, 0.9)", version="7")
    house.slots = Slots(1000, 1000, frozenset(), frozenset())
    await refused(house, "more than the limit of 1000")
    house.slots = SLOTS
    root = next(house.publisher.folder.glob("*2.0*.root"))
    root.write_bytes(root.read_bytes()[:-1] + b"x")
    await refused(house, "its SHA-256 is")
    sums = house.publisher.folder / "SHA256SUMS"
    sums.write_text(sums.read_text() + f"{'0' * 64}  more\n")
    await refused(house, "the signature of SHA256SUMS is wrong")
    (house.publisher.folder / "SHA256SUMS.gpg").unlink()
    shutil.rmtree(house.paths.staged / "look")
    command = await house.ask("check")
    said = await house.until_state("idle", command)
    assert "500" in (said.error or "")


async def test_a_downgrade_is_installed_when_asked_for(house: House) -> None:
    house.publisher.publish("0.9")
    installs(house, "0.9")
    await house.start()
    await house.ask("install", version="0.9", downgrade=True)
    await asyncio.wait_for(house.machine.restarted.wait(), 30)
    await house.boot("0.9", install="automatic", hours="00:00-00:00")
    await house.until_state("idle")
    house.publisher.publish("1.0")
    command = await house.ask("check")
    await house.until_state("idle", command)
    await asyncio.sleep(0.3)
    assert house.machine.restarts == 1, "what somebody left comes back only when asked for"


async def test_going_back(house: House) -> None:
    house.slots = replace(SLOTS, versions=frozenset({"1.0", "0.9"}))
    installs(house, "1.0")
    await house.start(source=None)
    command = await house.ask("rollback")
    said = await house.until_state("failed", command)
    assert "there is no earlier version to go back to" in (said.error or "")
    (house.paths.good / "0.9").mkdir(parents=True)
    (house.paths.good / "0.9" / "good").touch()
    await house.ask("rollback")
    await asyncio.wait_for(house.machine.restarted.wait(), 30)
    assert house.machine.started == ["rouse-update-back.service"]
    await house.until(lambda said: said.state == "rebooting" and said.previous == "0.9", "what it goes back to")
    await house.boot("0.9", source=None)
    await house.until_state("idle")
    assert [entry.result for entry in house.history()] == ["went_back"]


@pytest.mark.parametrize("outcome", [None, Outcome(version="2.0", ok=False, error="the slot is too small")])
async def test_what_root_could_not_do_is_told(house: House, outcome: Outcome | None) -> None:
    house.publisher.publish("2.0")
    house.machine.outcome = outcome
    await house.start()
    command = await house.ask("install")
    said = await house.until_state("failed", command)
    assert ("has left no word" if outcome is None else "the slot is too small") in (said.error or "")
    assert house.machine.restarts == 0
    assert [entry.result for entry in house.history()] == ["failed"]


async def test_without_polkit_s_permission(house: House) -> None:
    house.publisher.publish("2.0")
    house.machine.allowed = False
    await house.start()
    command = await house.ask("install")
    said = await house.until_state("failed", command)
    assert "polkit does not allow it" in (said.error or "")


async def test_a_daemon_that_died_between_install_and_restart_goes_on(house: House) -> None:
    house.publisher.publish("2.0")
    installs(house, "2.0")
    await house.start()
    await house.ask("install")
    await asyncio.wait_for(house.machine.restarted.wait(), 30)
    await house.stop()
    house.machine.restarted.clear()
    await house.start()
    await asyncio.wait_for(house.machine.restarted.wait(), 30)
    assert house.machine.started == ["rouse-update@2.0.service"]


async def test_a_command_that_comes_twice_is_carried_out_once(house: House) -> None:
    house.publisher.publish("2.0")
    await house.start()
    await house.until_state("idle")
    await house.until(lambda said: said.checked is not None, "the first look")
    house.asked.clear()
    await house.ask("check")
    house._sent -= 1
    await house.ask("check")
    command = await house.ask("check")
    await house.until_state("idle", command)
    assert len(house.asked) == 4


async def test_a_folder_is_a_source(house: House, tmp_path: Path) -> None:
    house.publisher.publish("2.0")
    installs(house, "2.0")
    folder = tmp_path / "stick" / "stable"
    shutil.copytree(house.publisher.folder, folder)
    await house.start(source=str(folder.parent))
    await house.ask("install")
    await asyncio.wait_for(house.machine.restarted.wait(), 30)
    assert house.asked == []
    (file,) = (house.paths.staged / "2.0").glob("*.root")
    assert file.read_bytes() == (folder / file.name).read_bytes()


async def test_plain_http_elsewhere_wants_permission(house: House) -> None:
    await house.start(source="http://192.0.2.1/updates")
    command = await house.ask("check")
    said = await house.until_state("idle", command)
    assert "updates.allow_http" in (said.error or "")
