"""What is known of nodes, and what of it outlives the hub."""

import asyncio
import json
import logging
from pathlib import Path

import pytest

from appliance.bus.messages import ExpertStatus
from appliance.power.memory import NodeMemory
from appliance.power.nodes import MAX_NODES, NodeBook
from tests.unit.power.wake.house import House


async def test_states(house: House) -> None:
    def told() -> tuple[bool, bool, bool, bool]:
        node = house.book.get("attic")
        assert node is not None
        return node.is_awake, node.is_going, node.sleeps, node.is_lost

    await house.announce("attic", "large")
    assert told() == (False, False, False, True)
    await house.presence("attic", "online")
    assert told() == (True, False, False, False)
    await house.power("attic", "awake")
    assert told() == (True, False, False, False)
    await house.power("attic", "going_to_sleep")
    assert told() == (False, True, False, False)
    await house.power("attic", "asleep")
    assert told() == (False, False, True, False)
    await house.presence("attic", "offline")
    assert told() == (False, False, True, False)
    await house.presence("attic", "online")
    assert told() == (False, False, True, False)
    await house.power("attic", "awake")
    assert told() == (True, False, False, False)
    await house.presence("attic", "offline")
    assert told() == (False, False, False, True)


async def test_one_that_went_while_it_was_about_to_sleep_sleeps(house: House) -> None:
    await house.awake("attic")
    await house.power("attic", "going_to_sleep")
    await house.presence("attic", "offline")
    node = house.book.get("attic")
    assert node is not None
    assert node.sleeps
    assert not node.is_lost


async def test_one_whose_daemon_was_stopped_is_not_missed(house: House) -> None:
    await house.awake("attic", "large")
    await house.book._on_expert(
        ExpertStatus(expert="large", node="attic", state="stopped"), {"node": "attic", "expert": "large"}
    )
    await house.presence("attic", "offline")
    node = house.book.get("attic")
    assert node is not None
    assert not node.is_lost


async def test_the_hub_itself_and_a_flood_are_left_out(house: House) -> None:
    await house.awake("hub")
    assert house.book.get("hub") is None
    for number in range(MAX_NODES + 5):
        await house.presence(f"node-{number}", "online")
    assert len(house.book.all) == MAX_NODES


async def test_what_is_known_outlives_the_hub(house: House, tmp_path: Path) -> None:
    path = tmp_path / "power" / "nodes.json"
    await house.asleep("attic", "large")
    await house.awake("cellar")
    house.book.keep_off("attic", None)
    writing = asyncio.create_task(NodeMemory(path, house.book).run())
    async with asyncio.timeout(10):
        while not path.exists():
            await asyncio.sleep(0.01)
    await house.power("cellar", "asleep")
    async with asyncio.timeout(10):
        while json.loads(path.read_text())["nodes"]["cellar"]["power"]["state"] != "asleep":
            await asyncio.sleep(0.01)
    writing.cancel()
    assert path.stat().st_mode & 0o777 == 0o600

    book = NodeBook(own="hub")
    NodeMemory(path, book).load()
    before, after = house.book.get("attic"), book.get("attic")
    assert before is not None
    assert after is not None
    assert after.announcement == before.announcement
    assert after.experts == before.experts
    assert after.sleeps
    assert not after.online
    assert book.is_kept_off(after)
    assert [node.name for node in book.with_expert("large")] == ["attic"]


async def test_idle_times_alone_are_not_worth_a_write(house: House) -> None:
    await house.awake("attic")
    before = house.book.version
    await house.power("attic", "awake")
    await house.presence("attic", "online")
    assert house.book.version == before


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"nodes": {"attic": {"power": {"state": "dancing"}}}}', b"\xff"]
)
async def test_a_file_that_cannot_be_read_is_put_aside(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "nodes.json"
    path.write_bytes(content)
    book = NodeBook(own="hub")
    with caplog.at_level(logging.ERROR):
        NodeMemory(path, book).load()
    assert book.all == ()
    assert not path.exists()
    assert path.with_suffix(".unreadable").read_bytes() == content
    assert str(path) in caplog.text


async def test_without_a_file_nothing_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    NodeMemory(tmp_path / "nodes.json", NodeBook(own="hub")).load()
    assert caplog.records == []
