import asyncio
from collections.abc import Callable

import pytest

from tests.unit.power.wake.house import MAC, House

PACKET = b"\xff" * 6 + bytes.fromhex(MAC.replace(":", "")) * 16


async def test_a_node_is_called_until_it_is_back(house: House) -> None:
    await house.asleep("attic")
    async with house.waker:
        waking = asyncio.create_task(house.waker.wake("attic", "a request"))
        await house.card.until(3)
        await house.presence("attic", "online")
        assert not waking.done()
        await house.power("attic", "awake")
        woken = await waking
    assert woken.ok
    assert woken.seconds > 0
    assert set(house.card.take()) == {PACKET}
    sent = len(house.card.packets)
    assert house.count("rouse_power_magic_packets_total", node="attic") == sent
    assert house.count("rouse_power_wakes_total", node="attic", cause="request", outcome="woken") == 1
    assert house.count("rouse_power_wake_seconds_count", node="attic") == 1
    (entry,) = house.entries()
    assert (entry.who, entry.what, entry.subject, entry.outcome) == ("request", "wake", "attic", "woken")
    assert entry.detail.endswith(f"{sent} packets.")


async def test_many_wishes_are_one_wake(house: House) -> None:
    await house.asleep("attic")
    async with house.waker:
        wishes = [asyncio.create_task(house.waker.wake("attic", f"request {number}")) for number in range(500)]
        await house.card.until(1)
        await house.awake("attic")
        results = await asyncio.gather(*wishes)
    assert all(result.ok for result in results)
    assert house.count("rouse_power_wakes_total", node="attic", cause="request", outcome="woken") == 1
    assert house.count("rouse_power_joined_wakes_total", node="attic") == 499
    assert len(house.entries()) == 1


async def test_one_who_leaves_does_not_end_it(house: House) -> None:
    await house.asleep("attic")
    async with house.waker:
        first = asyncio.create_task(house.waker.wake("attic", "a request"))
        await house.card.until(1)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert house.waker.is_waking("attic")
        second = asyncio.create_task(house.waker.wake("attic", "another"))
        await asyncio.sleep(0)
        await house.awake("attic")
        assert (await second).ok
    assert len(house.entries()) == 1


async def test_a_node_that_is_awake_is_not_called(house: House) -> None:
    await house.awake("attic")
    async with house.waker:
        assert await house.waker.wake("attic", "a request") == (await house.waker.wake("attic", "again"))
        assert house.waker.wake_soon("attic", "a hint")
    assert house.card.take() == []
    assert house.entries() == []


async def test_a_node_that_is_falling_asleep_is_called_when_it_sleeps(house: House) -> None:
    await house.awake("attic")
    await house.power("attic", "going_to_sleep")
    async with house.waker:
        waking = asyncio.create_task(house.waker.wake("attic", "a request"))
        await asyncio.sleep(0.2)
        assert house.card.take() == []
        await house.power("attic", "asleep")
        await house.presence("attic", "offline")
        await house.card.until(1)
        await house.awake("attic")
        assert (await waking).ok


async def test_a_node_that_stays_awake_after_all_is_not_called(house: House) -> None:
    await house.awake("attic")
    await house.power("attic", "going_to_sleep")
    async with house.waker:
        waking = asyncio.create_task(house.waker.wake("attic", "a request"))
        await asyncio.sleep(0.05)
        await house.power("attic", "awake")
        assert (await waking).ok
    assert house.card.take() == []


async def test_one_that_does_not_wake_is_said_once_and_not_called_again_at_once(house: House) -> None:
    await house.asleep("attic")
    async with house.waker:
        woken = await house.waker.wake("attic", "a request")
        assert not woken.ok
        assert woken.detail.startswith("attic does not wake: not back within 0.5 s of ")
        assert woken.detail.endswith(" magic packets to 127.0.0.1.")
        assert house.failures == [("attic", woken.detail)]
        sent = len(house.card.take())
        again = await house.waker.wake("attic", "a request")
        assert not again.ok
        assert again.detail.startswith(woken.detail)
        assert "It is tried again in 6" in again.detail or "It is tried again in 5" in again.detail
        assert not house.waker.wake_soon("attic", "a hint", cause="hint")
        assert len(house.card.take()) == sent
        assert house.waker.wake_soon("attic", "a person", cause="command")
        await house.card.until(sent + 1)
    assert [entry.outcome for entry in house.entries()] == ["failed"]


async def test_one_that_came_back_by_itself_is_called_again(make: Callable[..., House]) -> None:
    house = make(timeout=0.1, again_after=0.01)
    await house.asleep("attic")
    async with house.waker:
        assert not (await house.waker.wake("attic", "a request")).ok
        await house.awake("attic")
        assert (await house.waker.wake("attic", "a request")).ok
        await house.asleep("attic")
        await asyncio.sleep(0.02)
        before = len(house.card.take())
        waking = asyncio.create_task(house.waker.wake("attic", "a request"))
        await house.card.until(before + 1)
        await house.awake("attic")
        assert (await waking).ok


@pytest.mark.parametrize(
    ("wake", "expected"),
    [
        ({"enabled": False}, "attic sleeps, and wake.enabled is false"),
        (
            {"nodes": {"attic": {"secureon_file": "/nowhere/password"}}},
            "/nowhere/password: can't be read as a secret",
        ),
    ],
)
async def test_what_stands_in_the_way_is_said(make: Callable[..., House], wake: object, expected: str) -> None:
    house = make(**wake)  # type: ignore[arg-type]
    await house.asleep("attic")
    async with house.waker:
        woken = await house.waker.wake("attic", "a request")
    assert not woken.ok
    assert expected in woken.detail
    assert house.card.take() == []


async def test_strangers_are_no_labels(house: House) -> None:
    async with house.waker:
        woken = await house.waker.wake("stranger", "a request")
    assert woken.detail == "no node 'stranger' is known"
    assert all(
        "stranger" not in sample.labels.values() for metric in house.registry.collect() for sample in metric.samples
    )


async def test_a_node_without_an_address_is_told_how_to_get_one(house: House) -> None:
    await house.announce("attic", macs=())
    await house.power("attic", "asleep")
    async with house.waker:
        woken = await house.waker.wake("attic", "a request")
    assert woken.detail == ("no hardware address of attic is known; set wake.nodes.attic.macs, or let it be awake once")


async def test_a_node_that_somebody_wants_off_is_called_by_command_only(house: House) -> None:
    await house.asleep("attic")
    house.book.keep_off("attic", None)
    async with house.waker:
        assert not house.waker.can_wake("attic")
        woken = await house.waker.wake("attic", "a request")
        assert woken.detail == "somebody wants attic to stay off; rouse power wake attic ends that"
        assert house.waker.wake_soon("attic", "a person", cause="command")
        await house.card.until(1)
    house.book.keep_off("attic", house.now + 60)
    assert not house.waker.can_wake("attic")
    house.now += 61
    assert house.waker.can_wake("attic")


async def test_a_node_that_is_forgotten_meanwhile_ends_its_wake(house: House) -> None:
    await house.asleep("attic")
    async with house.waker:
        waking = asyncio.create_task(house.waker.wake("attic", "a request"))
        await house.card.until(1)
        house.book.forget("attic")
        assert (await waking).detail == "attic does not belong to this hub any more"


async def test_leaving_ends_the_wakes(house: House) -> None:
    await house.asleep("attic")
    async with house.waker:
        assert house.waker.wake_soon("attic", "a hint", cause="hint")
        await house.card.until(1)
    sent = len(house.card.take())
    await asyncio.sleep(0.3)
    assert len(house.card.take()) == sent
