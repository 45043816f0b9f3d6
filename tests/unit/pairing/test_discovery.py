"""Announcements, over loopback, and those that are forged."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

from appliance.pairing.discovery import SERVICE, Announcement, Browser, Found, browsing, multicast
from appliance.pairing.waiting import machine_model
from appliance.pairing.wire import Identity, State

LOOPBACK = ["127.0.0.1"]
SECONDS = 30


def state(**changes: Any) -> State:
    known = {
        "node": Identity(name="attic", fingerprint="a" * 64),
        "title": "Attic · 1",
        "model": "ThinkCentre",
        "rouse": "1.0",
        "roles": ("expert",),
        "state": "open",
    }
    return State(**{**known, **changes})


class Seen:
    """What a browser found, by the announcement's name."""

    def __init__(self) -> None:
        self.found: dict[str, Found | None] = {}

    def __call__(self, name: str, found: Found | None) -> None:
        self.found[name] = found

    async def until(self, good: Any) -> None:
        async with asyncio.timeout(SECONDS):
            while not good(self.found):
                await asyncio.sleep(0.02)


@pytest.fixture
async def both() -> AsyncIterator[tuple[AsyncZeroconf, Seen]]:
    """One who announces, and one who looks."""
    async with AsyncExitStack() as stack:
        announcing = await stack.enter_async_context(multicast(LOOPBACK))
        looking = await stack.enter_async_context(multicast(LOOPBACK))
        seen = Seen()
        await stack.enter_async_context(browsing(looking, Browser(seen)))
        yield announcing, seen


async def test_a_node_is_found_and_followed(both: tuple[AsyncZeroconf, Seen]) -> None:
    announcing, seen = both
    announcement = Announcement(announcing, port=8104, addresses=LOOPBACK)
    await announcement.tell(state())
    name = f"attic.{SERVICE}"
    await seen.until(lambda found: found.get(name) is not None)
    assert seen.found[name] == Found("127.0.0.1", 8104, state())
    await announcement.tell(state(state="locked", retry_after=5.0))
    await seen.until(lambda found: found[name] is not None and found[name].state.state == "locked")
    await announcing.async_unregister_all_services()
    await seen.until(lambda found: found[name] is None)


@pytest.mark.parametrize(
    "properties",
    [
        {},
        {"v": "1"},
        {"v": "x"},
        {"v": "1", "node": "../../x", "id": "a" * 64, "state": "open"},
        {"v": "1", "node": "attic", "id": "nonsense", "state": "open"},
        {"v": "1", "node": "attic", "id": "a" * 64, "state": "open", "title": "\x1b[2J"},
        {"v": "1", "node": "attic", "id": "a" * 64, "state": "open", "roles": "king"},
        {b"\xff\xfe": b"\xff"},
        {"v": b"\xff\xff"},
    ],
)
async def test_what_is_no_node_is_left_out(both: tuple[AsyncZeroconf, Seen], properties: dict[Any, Any]) -> None:
    announcing, seen = both
    forged = AsyncServiceInfo(SERVICE, f"forged.{SERVICE}", port=1, properties=properties, parsed_addresses=LOOPBACK)
    await announcing.async_register_service(forged)
    await Announcement(announcing, port=2, addresses=LOOPBACK).tell(state())
    await seen.until(lambda found: found.get(f"attic.{SERVICE}") is not None)
    assert list(seen.found) == [f"attic.{SERVICE}"]


def test_the_machine_has_a_model() -> None:
    assert machine_model()
