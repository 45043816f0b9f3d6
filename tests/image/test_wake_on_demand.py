"""A house of two machines: paired by the code on the screen, one sleeps when idle, and a chat request wakes it."""

import asyncio
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from typing import Any

import pytest

from image_build.machine import Hardware, Machine, Network
from image_build.source import checkout
from tests.image.appliance import GATEWAY_KEY, GATEWAY_PORT, MODEL, retained
from tests.image.conftest import BOOT_SECONDS, WORK, Image, Report, copy_disk, put_on_config_partition
from tests.image.wake import (
    BRIDGE,
    HUB_ADDRESS,
    HUB_MAC,
    HUB_TAP,
    NAMESPACE,
    NODE_ADDRESS,
    NODE_MAC,
    NODE_TAP,
    WITHIN,
    bridged,
    card,
    status,
)

pytestmark = [
    pytest.mark.image,
    pytest.mark.timeout(2 * 3600),
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces and tap devices need root"),
]

HUB = f"""
[node]
name = "house"
roles = ["hub"]

[network.static]
address = "{HUB_ADDRESS}/24"

[gateway]
host = "0.0.0.0"
first_token_timeout = 900
"""
NODE = f"""
[node]
name = "attic"

[network.static]
address = "{NODE_ADDRESS}/24"

[experts.small]
model = "{MODEL}"
context = 2048
slots = 1
threads = 1

[power]
idle_after = 90
minimum_awake = 60
# QEMU's cards can't wake a machine; what stands in for one does.
sleep_without_wake = true
"""
PREFIX = (
    "You are the voice of a house. You answer in one short sentence. "
    "The house has a kitchen with a lamp, a living room with two lamps and a radio, a bedroom with a lamp, a bath with "
    "a heater, a garage with a door, and a garden with a sprinkler. The heating is off from May to September. "
    "At night the doors are locked. Do not guess: say that you do not know what you do not know."
)
PREFIXES = "/var/lib/rouse/prefixes"
VISITOR = "10.77.0.200"
SLEEP_SECONDS = 900
ANSWER_SECONDS = 1200


async def test_a_chat_request_wakes_the_machine_of_a_sleeping_expert(image: Image, report: Report) -> None:
    shutil.rmtree(WORK / "test" / "wake-on-demand", ignore_errors=True)
    with bridged():
        subprocess.run(["ip", "-n", NAMESPACE, "address", "add", f"{VISITOR}/24", "dev", BRIDGE], check=True)
        async with contextlib.AsyncExitStack() as stack:
            hub = await stack.enter_async_context(_machine(image, "hub", HUB, HUB_TAP, HUB_MAC))
            node = await stack.enter_async_context(_machine(image, "node", NODE, NODE_TAP, NODE_MAC))
            await asyncio.gather(hub.wait_up(2 * BOOT_SECONDS), node.wait_up(2 * BOOT_SECONDS))
            await _pair(hub, node)
            key = (await hub.run(f"cat {GATEWAY_KEY}")).strip()
            network_card = await stack.enter_async_context(card(node, NODE_MAC, NODE_TAP))
            await _ready(hub)

            with node.events("SUSPEND", "WAKEUP") as events:
                await _expect(events, "SUSPEND", SLEEP_SECONDS)
                cold = await _ask(key, "How many lamps has the living room?")
                await _expect(events, "WAKEUP", 60)
                _add(report, "cold prefix", cold, network_card.seen[0])
                assert cold["cached"] == 0

                # What requests of one name have in common is kept on disk from its second use on. The expert starts
                # anew, so that it comes from there and not from its memory.
                await _ask(key, "Is the heating on in June?")
                await node.run(f"until find {PREFIXES} -name '*.prefix' | grep -q .; do sleep 1; done", 60)
                await node.run("systemctl restart rouse-expert@small.service", 600)
                await _ready(hub)
                packets = len(network_card.seen)
                await _expect(events, "SUSPEND", SLEEP_SECONDS)
                assert len(network_card.seen) == packets, "the hub woke a machine that nobody had asked"
                known = await _ask(key, "Where is the sprinkler?")
                await _expect(events, "WAKEUP", 60)
                assert known["cached"] > 64
                _add(report, "persisted prefix", known, network_card.seen[packets])
            assert await status(node) == "running"
            assert cold["origin"]["woken"]["node"] == known["origin"]["woken"]["node"] == "attic"
            assert "attic" in await hub.run("rouse power audit", 180)


@contextlib.asynccontextmanager
async def _machine(image: Image, name: str, text: str, tap: str, mac: str) -> Any:
    folder = WORK / "test" / "wake-on-demand" / name
    folder.mkdir(parents=True)
    disk = folder / "disk.raw"
    await asyncio.to_thread(copy_disk, image.disk, disk)
    put_on_config_partition(image, disk, "rouse.toml", text)
    hardware = Hardware(memory=1536, processors=1, kvm=image.kvm, network=Network(mac=mac, tap=tap))
    async with Machine(
        disk, folder=folder, tools=image.tools, platform=image.platform, hardware=hardware, within=WITHIN
    ) as machine:
        yield machine


async def _pair(hub: Machine, node: Machine) -> None:
    """Pair as a person does: by the code that the node's screen shows, typed on the hub."""
    end = time.monotonic() + 600
    while "attic" not in await hub.run("rouse pair list --json", 180, check=False):
        assert time.monotonic() < end, "the hub does not find the node"
        await asyncio.sleep(5)
    wrong = await hub.run("echo 0000 0000 | rouse pair attic", 180, check=False)
    assert "wrong" in wrong, wrong
    code = re.findall(r"this code:\D*(\d{4}) (\d{4})", node.console.tail())[-1]
    said = await hub.run(f"echo {code[0]} {code[1]} | rouse pair attic", 300)
    assert "belongs to this hub" in said
    wrong = await hub.run(f"echo {code[0]} {code[1]} | rouse pair attic", 180, check=False)
    assert "belongs to this hub" not in wrong, "a second claim is refused"


async def _ready(hub: Machine) -> None:
    """Wait until the bus says that the node is awake and its expert ready."""
    end = time.monotonic() + 900
    while True:
        told = await retained(hub)
        expert, power = (told.get(f"rouse/v1/nodes/attic/{what}", {}) for what in ("experts/small", "power"))
        if (expert.get("state"), power.get("state")) == ("ready", "awake"):
            return
        assert time.monotonic() < end, f"the expert is not ready: {told}"
        await asyncio.sleep(5)


async def _ask(key: str, question: str) -> dict[str, Any]:
    """Ask the gateway from another machine on the bridge."""
    request = {
        "host": HUB_ADDRESS,
        "port": GATEWAY_PORT,
        "key": key,
        "timeout": ANSWER_SECONDS,
        "body": {
            "model": "small",
            "messages": [{"role": "system", "content": PREFIX}, {"role": "user", "content": question}],
            "max_tokens": 12,
            "temperature": 0,
            "prompt_cache_key": "house",
            "stream_options": {"include_usage": True},
        },
    }
    process = await asyncio.create_subprocess_exec(
        *WITHIN,
        *(sys.executable, "-m", "tests.image.asking"),
        cwd=checkout(),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate(json.dumps(request).encode())
    told: dict[str, Any] = json.loads(output)
    assert told["status"] == 200, told["text"]
    assert told["text"].strip()
    return told


async def _expect(events: Any, name: str, seconds: float) -> None:
    got = await asyncio.wait_for(events.get(), seconds)
    assert got["event"] == name


def _add(report: Report, name: str, told: dict[str, Any], packet: float) -> None:
    report.rows.update(
        {
            f"wake on demand, {name}: request to expert ready, s": told["origin"]["woken"]["seconds"],
            f"wake on demand, {name}: request to packet, s": round(packet - told["asked"], 2),
            f"wake on demand, {name}: packet to first token, s": round(told["first"] - packet, 2),
            f"wake on demand, {name}: request to first token, s": round(told["first"] - told["asked"], 2),
        }
    )
