"""The embedded broker beside mosquitto: memory, latency of a message, processor time, messages a second."""

import asyncio
import itertools
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from aiomqtt import Client

from scripts.house.mosquitto import mosquitto, program
from scripts.house.processes import free_port
from tests.benchmarks.processes import memory_of, processor_seconds_of
from tests.benchmarks.scenario import Result, Row, Scenario, Setting

PASSWORD = "of-no-importance"  # for a broker that lives for a minute
CLIENTS, RETAINED = 25, 200
STREAMS, PIECES, PAUSE = 8, 100, 0.05
"""Answers at the same time, messages of each, and the time between them: what agents send at most."""
PIECE = b'{"id":"0123456789abcdef","index":12,"kind":"text","text":"a few words of an answer"}' * 2
BURST = 3000


@dataclass(frozen=True, slots=True)
class Running:
    """A broker that runs."""

    name: str
    port: int
    process: int
    without: int
    """Bytes that its process takes before there is a broker in it."""

    def client(self, identifier: str) -> Client:
        return Client("127.0.0.1", self.port, username="rouse", password=PASSWORD, identifier=identifier, timeout=60)


@asynccontextmanager
async def _embedded(_folder: Path) -> AsyncIterator[Running]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.benchmarks.launch_broker",
        stdout=asyncio.subprocess.PIPE, env={**os.environ, "PASSWORD": PASSWORD},
    )  # fmt: skip
    try:
        if process.stdout is None:
            raise OSError("no output")
        before, port = (await asyncio.wait_for(process.stdout.readline(), 120)).split()
        yield Running("embedded (amqtt)", int(port), process.pid, int(before))
    finally:
        process.kill()
        await process.wait()


@asynccontextmanager
async def _mosquitto(folder: Path) -> AsyncIterator[Running]:
    port = free_port()
    async with mosquitto(folder / "mosquitto", port=port, passwords={"rouse": PASSWORD}):
        mine = psutil.Process().children()
        process = next(child.pid for child in mine if child.name() == "mosquitto")
        yield Running("mosquitto", port, process, 0)


async def _latencies(pairs: Sequence[tuple[Client, ...]]) -> list[float]:
    """Send what agents send: pieces of several answers at a time; return the seconds that each piece was under way."""
    taken: list[float] = []

    async def stream(number: int, sender: Client, receiver: Client) -> None:
        topic = f"rouse/v1/clients/{number}/replies"
        await receiver.subscribe(topic, qos=1)
        messages = aiter(receiver.messages)
        for _ in range(PIECES):
            began = time.perf_counter()
            await sender.publish(topic, PIECE, qos=1)
            await anext(messages)
            taken.append(time.perf_counter() - began)
            await asyncio.sleep(PAUSE)

    async with asyncio.TaskGroup() as group:
        for number, pair in enumerate(pairs):
            group.create_task(stream(number, *pair), name=f"stream {number}")
    return taken


async def _burst(broker: Running) -> tuple[float, float]:
    """Send as fast as it goes; return messages a second, and the broker's processor time for each."""
    async with broker.client("burst-from") as sender, broker.client("burst-to") as receiver:
        await receiver.subscribe("burst", qos=0)
        began, before = time.perf_counter(), processor_seconds_of(broker.process)

        async def send() -> None:
            for _ in range(BURST):
                await sender.publish("burst", PIECE, qos=0)

        sending = asyncio.create_task(send(), name="send")
        messages = aiter(receiver.messages)
        for _ in range(BURST):
            await asyncio.wait_for(anext(messages), 60)
        await sending
        took = time.perf_counter() - began
        return BURST / took, (processor_seconds_of(broker.process) - before) / BURST


async def _measure(broker: Running) -> Sequence[Row]:
    idle = memory_of(broker.process) - broker.without
    async with AsyncExitStack() as stack:
        for number in range(CLIENTS):
            client = await stack.enter_async_context(broker.client(f"node-{number}"))
            await client.subscribe(f"rouse/v1/nodes/{number}/#", qos=1)
            for retained in range(RETAINED // CLIENTS):
                await client.publish(f"kept/{number}/{retained}", PIECE, qos=1, retain=True)
        busy = memory_of(broker.process) - broker.without
        before = processor_seconds_of(broker.process)
        ends = [
            await stack.enter_async_context(broker.client(f"{end}-{number}"))
            for number in range(STREAMS)
            for end in ("agent", "client")
        ]
        logging_in = (processor_seconds_of(broker.process) - before) / len(ends)
        before = processor_seconds_of(broker.process)
        taken = await _latencies(list(itertools.batched(ends, 2, strict=True)))
        spent = processor_seconds_of(broker.process) - before
    rate, each = await _burst(broker)
    taken.sort()
    told = f"{STREAMS} answers at a time, {CLIENTS} other clients"
    return (
        Row(f"{broker.name}: memory", idle / 2**20, "MiB", note="beside what the hub takes anyway"),
        Row(f"{broker.name}: memory in use", busy / 2**20, "MiB", note=f"{CLIENTS} clients, {RETAINED} retained"),
        Row(f"{broker.name}: a piece, median", statistics.median(taken) * 1e3, "ms", note=told),
        Row(f"{broker.name}: a piece, one in 100", taken[len(taken) * 99 // 100] * 1e3, "ms", note=told),
        Row(f"{broker.name}: processor for these", spent / len(taken) * 1e3, "ms", note="for each piece, with QoS 1"),
        Row(f"{broker.name}: processor for a log-in", logging_in * 1e3, "ms"),
        Row(f"{broker.name}: messages a second", rate, "", note="QoS 0, one to one, as fast as it goes"),
        Row(f"{broker.name}: processor for one of them", each * 1e6, "µs"),
    )


async def run(setting: Setting) -> Result:
    """Measure both, one after the other."""
    if program() is None:
        return Result([Row("brokers", None, "", note="mosquitto is not installed")])
    rows: list[Row] = []
    for start in (_embedded, _mosquitto):
        async with start(setting.folder) as broker:
            rows += await _measure(broker)
    return Result(rows)


SCENARIO = Scenario("brokers", "The embedded broker beside mosquitto", run)
