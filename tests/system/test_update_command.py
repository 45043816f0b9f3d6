"""`rouse update` on a real broker; the node at the other end is played."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from appliance.bus.client import Bus
from appliance.bus.topics import NODE_UPDATE, UPDATE_COMMAND
from appliance.bus.update_messages import NodeUpdate, UpdateCommand
from appliance.cli import update
from appliance.cli.app import app
from appliance.updates.memory import Attempt, Notebook
from tests.system.conftest import PASSWORDS, RunningBroker, amqtt_on

pytestmark = pytest.mark.broker

IDLE: dict[str, Any] = {"installed": "1.0", "latest": "2.0", "state": "idle", "detail": "version 2.0 can be installed"}


class PlayedNode:
    """Says what a test wants it to say after a command."""

    def __init__(self, broker: RunningBroker, name: str) -> None:
        self.name = name
        self.bus = Bus(broker.connection(), identifier=f"node-{name}")
        self.commands: list[UpdateCommand] = []
        self.answers: list[dict[str, Any]] = []
        self.bus.subscribe(UPDATE_COMMAND, self._take, node=name)

    async def _take(self, command: UpdateCommand | None, _levels: object) -> None:
        assert command is not None
        self.commands.append(command)
        for answer in self.answers:
            await self.say({"command": command.id, **answer})

    async def say(self, message: dict[str, Any]) -> None:
        await self.bus.keep(NODE_UPDATE, NodeUpdate.model_validate(message), node=self.name)


class House:
    def __init__(self, folder: Path, broker: RunningBroker) -> None:
        self.state = folder / "state"
        self.folder = folder
        self.broker = broker
        password = folder / "password"
        password.write_text(PASSWORDS["rouse"])
        (folder / "rouse.toml").write_text(
            f'[node]\nname = "attic"\n[paths]\nstate = "{self.state}"\n[broker]\nurl = "mqtt://127.0.0.1:{broker.port}"\n'
            f'username = "rouse"\npassword_file = "{password}"\n'
        )

    async def run(self, *arguments: str) -> Result:
        line = ["--config-dir", str(self.folder), "update", *arguments]
        return await asyncio.to_thread(lambda: CliRunner().invoke(app, line))


@pytest.fixture
async def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    monkeypatch.setattr(update, "RETAINED_SECONDS", 1.0)
    monkeypatch.setattr(update, "TAKEN_SECONDS", 2.0)
    async with RunningBroker(amqtt_on) as broker:
        yield House(tmp_path, broker)


@pytest.fixture
async def node(house: House) -> AsyncIterator[PlayedNode]:
    node = PlayedNode(house.broker, "attic")
    async with node.bus:
        await node.bus.wait_connected(10)
        await node.say(IDLE)
        yield node


async def test_status(house: House, node: PlayedNode) -> None:
    cellar = PlayedNode(house.broker, "cellar")
    async with cellar.bus:
        await cellar.bus.wait_connected(10)
        await cellar.say({**IDLE, "state": "downloading", "progress": 0.25, "previous": "0.9"})
        result = await house.run("status", "--all")
        assert result.exit_code == 0
        assert "downloading 25%" in result.output
        assert "version 2.0 can be installed" in result.output
        result = await house.run("status", "--json")
    assert json.loads(result.output) == {"attic": IDLE}
    assert node.commands == []


async def test_status_of_nobody(house: House) -> None:
    result = await house.run("status")
    assert result.exit_code == 1
    assert "attic says nothing of updates: does it run the image, and rouse node?" in result.output
    result = await house.run("status", "--node", "no/node")
    assert result.exit_code == 1
    assert "no name of a node" in result.output


async def test_check(house: House, node: PlayedNode) -> None:
    node.answers = [{**IDLE, "state": "checking"}, IDLE]
    result = await house.run("check")
    assert result.exit_code == 0
    assert "Version 2.0 can be installed." in result.output
    node.answers = [{**IDLE, "latest": "1.0"}]
    assert "There is no newer version." in (await house.run("check")).output
    node.answers = [{**IDLE, "error": "the source answers 404"}]
    result = await house.run("check")
    assert result.exit_code == 1
    assert "the source answers 404" in result.output


async def test_install_waits_for_the_end(house: House, node: PlayedNode) -> None:
    node.answers = [
        {**IDLE, "state": "downloading", "progress": 0.1, "detail": "rouse_2.0_amd64.efi"},
        {**IDLE, "state": "rebooting", "progress": 0.9, "detail": ""},
        {**IDLE, "state": "verifying", "command": None},
        {**IDLE, "installed": "2.0", "state": "idle", "command": None},
    ]
    result = await house.run("install", "2.0", "--downgrade")
    assert result.exit_code == 0, result.output
    assert "Version 2.0 runs and is healthy." in result.output
    assert " 10% downloading: rouse_2.0_amd64.efi" in result.output
    (command,) = node.commands
    assert (command.action, command.version, command.downgrade) == ("install", "2.0", True)


async def test_install_that_fails_or_does_not_wait(house: House, node: PlayedNode) -> None:
    node.answers = [{**IDLE, "state": "failed", "error": "its SHA-256 is wrong"}]
    result = await house.run("install", "--json")
    assert result.exit_code == 1
    assert "its SHA-256 is wrong" in result.output
    node.answers = [{**IDLE, "state": "downloading"}]
    result = await house.run("install", "--no-wait")
    assert result.exit_code == 0
    assert "It has begun: downloading." in result.output


async def test_a_node_that_does_not_answer(house: House, node: PlayedNode) -> None:
    result = await house.run("rollback")
    assert result.exit_code == 1
    assert "attic has not begun within 2 s" in result.output
    assert [command.action for command in node.commands] == ["rollback"]


async def test_what_makes_no_sense(house: House) -> None:
    result = await house.run("install", "../2.0")
    assert result.exit_code == 1
    assert "is no version of an image" in result.output
    result = await house.run("install", "--from", "/nonexistent", "--node", "cellar")
    assert result.exit_code == 1
    assert "--from is for this machine" in result.output


async def test_from_a_folder_on_a_machine_without_the_image(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    result = await house.run("install", "--from", str(house.folder))
    assert result.exit_code == 1
    assert "it is for root" in result.output
    monkeypatch.setattr("os.geteuid", lambda: 0)
    result = await house.run("install", "--from", str(house.folder))
    assert result.exit_code == 1
    assert "this machine does not run the image" in result.output


async def test_history(house: House) -> None:
    result = await house.run("history")
    assert "This machine has not been updated yet." in result.output
    notebook = Notebook(house.state / "updates")
    (house.state / "updates").mkdir(parents=True)
    attempt = Attempt(version="2.0", former="1.0", boot="1", started=1795000000.0)
    notebook.begin(attempt)
    notebook.settle(attempt, "rolled_back", "the expert small is gone")
    result = await house.run("history")
    assert result.exit_code == 0
    assert "rolled back" in result.output
    assert "the expert small is gone" in result.output
    (entry,) = json.loads((await house.run("history", "--json")).output)
    assert (entry["former"], entry["version"], entry["result"]) == ("1.0", "2.0", "rolled_back")
