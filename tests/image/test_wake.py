"""A sleeping machine and the one that wakes it."""

import asyncio
import contextlib
import os
import shutil
import time

import pytest

from image_build.machine import Hardware, Machine, Network
from tests.image.conftest import BOOT_SECONDS, WORK, Image, Report, copy_disk
from tests.image.wake import (
    BROADCAST,
    HUB_ADDRESS,
    HUB_MAC,
    HUB_TAP,
    NODE_ADDRESS,
    NODE_MAC,
    NODE_TAP,
    SEND,
    WITHIN,
    bridged,
    card,
    give_address,
    is_magic,
    status,
)

pytestmark = [pytest.mark.image, pytest.mark.timeout(2400)]

# The image has no ping; sshd listens in every machine.
_REACH = """(
for i in $(seq 200); do timeout 1 bash -c '< /dev/tcp/{address}/22' 2> /dev/null && exit 0; sleep 0.2; done; exit 1
)"""


def test_a_magic_packet_is_known_anywhere_in_a_frame() -> None:
    pattern = b"\xff" * 6 + bytes.fromhex(NODE_MAC.replace(":", "")) * 16
    assert is_magic(b"header" + pattern + b"password", NODE_MAC)
    assert not is_magic(b"header" + pattern, HUB_MAC)
    assert not is_magic(pattern[:-1], NODE_MAC)


@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces and tap devices need root")
async def test_a_magic_packet_wakes_a_machine_that_sleeps(image: Image, report: Report) -> None:
    folder = WORK / "test" / "wake"
    shutil.rmtree(folder, ignore_errors=True)
    with bridged():
        async with contextlib.AsyncExitStack() as stack:
            hub = await stack.enter_async_context(_machine(image, "hub", HUB_TAP, HUB_MAC))
            node = await stack.enter_async_context(_machine(image, "node", NODE_TAP, NODE_MAC))
            await asyncio.gather(hub.wait_up(2 * BOOT_SECONDS), node.wait_up(2 * BOOT_SECONDS))
            await give_address(hub, HUB_MAC, HUB_ADDRESS)
            await give_address(node, NODE_MAC, NODE_ADDRESS)
            await hub.run(_REACH.format(address=NODE_ADDRESS), 120)
            network_card = await stack.enter_async_context(card(node, NODE_MAC, NODE_TAP))

            started = time.monotonic()
            with node.events("SUSPEND", "WAKEUP") as events:
                await node.shell.send("systemctl suspend\n")
                assert (await asyncio.wait_for(events.get(), 120))["event"] == "SUSPEND"
                asleep = time.monotonic()

                await hub.run(SEND.format(mac="52:54:00:77:00:99", address=BROADCAST), 60)
                await asyncio.sleep(3)
                assert await status(node) == "suspended"
                assert not network_card.seen

                asked = time.monotonic()
                await hub.run(SEND.format(mac=NODE_MAC, address=BROADCAST), 60)
                assert (await asyncio.wait_for(events.get(), 60))["event"] == "WAKEUP"
                awake = time.monotonic()
                await hub.run(_REACH.format(address=NODE_ADDRESS), 120)
                reached = time.monotonic()
            await node.run("true", 60)
            ready = time.monotonic()
            assert await status(node) == "running"
            assert (await node.run("journalctl -b -o cat --no-pager | grep -c 'PM: suspend exit'")).strip() == "1"
    report.rows.update(
        {
            "asked to sleep until asleep, s": round(asleep - started, 2),
            "asked to wake until packet on the wire, s": round(network_card.seen[0] - asked, 2),
            "packet until awake, s": round(awake - network_card.seen[0], 2),
            "packet until SSH is reached, s": round(reached - network_card.seen[0], 2),
            "packet until a command ran, s": round(ready - network_card.seen[0], 2),
        }
    )


def _machine(image: Image, name: str, tap: str, mac: str) -> Machine:
    folder = WORK / "test" / "wake" / name
    folder.mkdir(parents=True)
    copy_disk(image.disk, folder / "disk.raw")
    return Machine(
        folder / "disk.raw",
        folder=folder,
        tools=image.tools,
        platform=image.platform,
        hardware=Hardware(memory=1024, processors=1, kvm=image.kvm, network=Network(mac=mac, tap=tap)),
        within=WITHIN,
    )
