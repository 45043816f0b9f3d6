"""Nodes that are killed, stopped, or not alone with their name."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import psutil
import pytest

from appliance.bus.topics import EXPERT_STATUS, NODE_ANNOUNCEMENT, NODE_STATUS
from scripts.house.appliance import MODEL, Appliance
from scripts.house.mosquitto import mosquitto, program
from tests.faults.house import NODE, Observed, child_of, is_online
from tests.system.conftest import PASSWORDS, RunningBroker

pytestmark = [
    pytest.mark.broker,
    pytest.mark.model,
    pytest.mark.skipif(program() is None, reason="mosquitto is not installed: apt-get install mosquitto"),
]

STATUS = NODE_STATUS.at(node=NODE)


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[RunningBroker]:
    async with RunningBroker(lambda port: mosquitto(tmp_path / "mosquitto", port=port, passwords=PASSWORDS)) as running:
        yield running


@pytest.fixture
async def observed(broker: RunningBroker) -> AsyncIterator[Observed]:
    bus = broker.bus("observer", "homeassistant")
    seen = Observed(bus)
    async with bus:
        await bus.wait_connected(10)
        yield seen


def configured(folder: Path, broker: RunningBroker, experts: Mapping[str, Path]) -> Appliance:
    appliance = Appliance(folder, broker_port=broker.port, gateway_port=0, password=PASSWORDS["rouse"], experts=experts)
    appliance.configure()
    return appliance


def node_process() -> psutil.Process:
    return child_of(psutil.Process(), "appliance", "node")


async def until_gone(process: psutil.Process) -> None:
    async with asyncio.timeout(20):
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            await asyncio.sleep(0.02)


async def test_a_killed_node_takes_its_expert_along_and_its_last_will_speaks(
    tmp_path: Path, broker: RunningBroker, observed: Observed
) -> None:
    appliance = configured(tmp_path / "rouse", broker, {"small": MODEL})
    async with appliance.process("node"):
        await observed.until_expert("small", "ready")
        assert is_online(observed.latest[STATUS])
        expert = child_of(node_process(), "--supervised", "small")
        node_process().kill()
        await until_gone(expert)
        await observed.until(lambda: not is_online(observed.latest[STATUS]), "node offline")
    async with appliance.process("node"):
        await observed.until(lambda: is_online(observed.latest[STATUS]), "node online again")
        await observed.until_expert("small", "ready")


async def test_sigterm_while_the_model_loads_ends_everything(
    tmp_path: Path, broker: RunningBroker, observed: Observed
) -> None:
    appliance = configured(tmp_path / "rouse", broker, {"small": MODEL})
    async with appliance.process("node"):
        await observed.until_expert("small", "starting")
        node = node_process()
        async with asyncio.timeout(20):
            while not node.children():
                await asyncio.sleep(0.005)
        expert = node.children()[0]
        node.terminate()
        await until_gone(node)
        await until_gone(expert)
        await observed.until_expert("small", "stopped")
        await observed.until(lambda: not is_online(observed.latest[STATUS]), "node offline")
    # A node that sleeps is still known, so that it can be woken.
    assert observed.latest[NODE_ANNOUNCEMENT.at(node=NODE)].experts == ("small",)


async def test_a_model_that_is_none_is_announced_with_the_reason_and_the_node_does_not_spin(
    tmp_path: Path, broker: RunningBroker, observed: Observed
) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"not a model")
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(MODEL.read_bytes()[:100_000])
    appliance = configured(
        tmp_path / "rouse", broker, {"broken": broken, "cut": cut, "missing": tmp_path / "missing.gguf"}
    )
    async with appliance.process("node"):
        for name, reason in (
            ("broken", "this is no GGUF file"),
            ("cut", "llama.cpp can't load the model"),
            ("missing", "No such file or directory"),
        ):
            failed = await observed.until_expert(name, "failed")
            assert failed.error is not None
            assert failed.error.startswith(f"rouse: {tmp_path / name}.gguf: ")
            assert reason in failed.error
            assert "\n" not in failed.error
        await asyncio.sleep(3)
        for name in ("broken", "cut", "missing"):
            status = observed.expert(name)
            assert status is not None
            assert status.restarts <= 3


async def test_experts_that_are_no_longer_in_the_settings_are_forgotten(
    tmp_path: Path, broker: RunningBroker, observed: Observed
) -> None:
    missing = tmp_path / "missing.gguf"
    async with configured(tmp_path / "rouse", broker, {"old": missing, "new": missing}).process("node"):
        await observed.until_expert("old", "failed")
    await observed.until_expert("old", "stopped")
    async with configured(tmp_path / "rouse", broker, {"new": missing}).process("node"):
        old = EXPERT_STATUS.at(node=NODE, expert="old")
        await observed.until(lambda: observed.latest[old] is None, "the old expert withdrawn")
        await observed.until_expert("new", "failed")


async def test_two_nodes_of_one_name_are_told_what_is_wrong(tmp_path: Path, broker: RunningBroker) -> None:
    missing = {"small": tmp_path / "missing.gguf"}
    first = configured(tmp_path / "first", broker, missing)
    second = configured(tmp_path / "second", broker, missing)
    async with first.process("node"), second.process("node"), asyncio.timeout(60):
        while not all("Give each machine its own node.name" in one.log("node").read_text() for one in (first, second)):
            await asyncio.sleep(0.1)
    for one in (first, second):
        assert one.log("node").read_text().count("Give each machine its own node.name") == 1
