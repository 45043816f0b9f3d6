"""Servers that are not the house's own: real ones, and ones that behave badly."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from scripts.house.processes import free_port
from tests.faults.house import LONG, House, events, running_house
from tests.faults.llama_server import KEY, cpp_command, llama_server, python_command, running

pytestmark = [pytest.mark.broker, pytest.mark.model, pytest.mark.asyncio(loop_scope="module")]

FIRST_TOKEN_SECONDS = 20
HASTY_SECONDS = 1.5
CHUNK = b'data: {"choices": [{"index": 0, "delta": {"content": "x"}}]}\n\n'

type Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Houses:
    """A hub that knows servers of others, each on a port of its own, whether something listens there or not."""

    def __init__(self, house: House, ports: dict[str, int], folder: Path) -> None:
        self.house = house
        self.ports = ports
        self.folder = folder

    async def state(self, expert: str) -> str:
        async with self.house.http.get(f"{self.house.url}/health", headers=self.house.headers) as response:
            return str({one["expert"]: one["state"] for one in (await response.json())["endpoints"]}[expert])

    async def until(self, expert: str, *states: str) -> None:
        async with asyncio.timeout(30):
            while await self.state(expert) not in states:
                await asyncio.sleep(0.05)


async def start(
    stack: AsyncExitStack, folder: Path, ports: dict[str, int], *, first_token: float, probe: float
) -> Houses:
    externals = "\n".join(
        f'[gateway.externals.{name}]\nurl = "http://127.0.0.1:{port}/v1"\nkey = "{KEY}"' for name, port in ports.items()
    )
    group = f"[gateway]\nfirst_token_timeout = {first_token}\nprobe_interval = {probe}\n{externals}\n"
    house = await stack.enter_async_context(running_house(folder, "amqtt", experts={}, group=group))
    return Houses(house, ports, folder)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def real(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Houses]:
    """A hub with llama.cpp's servers as its only experts."""
    async with AsyncExitStack() as stack:
        ports = {name: free_port() for name in ("cpp", "python")}
        folder = tmp_path_factory.mktemp("real")
        yield await start(stack, folder, ports, first_token=FIRST_TOKEN_SECONDS, probe=0.5)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bad(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Houses]:
    """A hub with little patience, and servers that try it. They are not probed while the tests run."""
    async with AsyncExitStack() as stack:
        ports = {name: free_port() for name in BEHAVIOURS}
        for name, behaviour in BEHAVIOURS.items():
            server = await asyncio.start_server(behaviour, "127.0.0.1", ports[name])
            stack.callback(server.close_clients)
            stack.callback(server.close)
        yield await start(stack, tmp_path_factory.mktemp("bad"), ports, first_token=HASTY_SECONDS, probe=600)


async def both_ways(houses: Houses, expert: str) -> None:
    """Ask for an answer in one piece, and for a stream."""
    async with houses.house.chat("Say hello.", model=expert, max_tokens=6) as response:
        body = await response.json()
        assert response.status == 200, (body, houses.house.logs())
    assert body["choices"][0]["message"]["content"]
    assert body["rouse"] | {"attempts": []} == {
        "expert": expert,
        "node": "external",
        "reason": "The request names it.",
        "router": "request",
        "attempts": [],
    }
    async with houses.house.chat("Say hello.", model=expert, max_tokens=6, stream=True) as response:
        stream = await response.read()
        assert response.status == 200, (stream, houses.house.logs())
    assert stream.rstrip().endswith(b"data: [DONE]")
    told = events(stream)
    assert told[0]["rouse"]["expert"] == expert
    assert any(choice["delta"].get("content") for event in told for choice in event["choices"])


async def leave(houses: Houses, port: int) -> None:
    """Leave in the middle of an answer, and wait until llama-server has a free slot again."""
    async with houses.house.chat(LONG, model="cpp", stream=True, max_tokens=1000) as response:
        await response.content.readany()
        response.close()
    headers = {"Authorization": f"Bearer {KEY}"}
    async with asyncio.timeout(30):
        while True:
            async with houses.house.http.get(f"http://127.0.0.1:{port}/slots", headers=headers) as response:
                if not any(slot["is_processing"] for slot in await response.json()):
                    return
            await asyncio.sleep(0.05)


async def test_llama_server_is_an_expert_and_survives_its_own_death(real: Houses) -> None:
    program = llama_server()
    if program is None:
        pytest.skip("there is no llama-server: set ROUSE_LLAMA_SERVER to its path")
    port = real.ports["cpp"]
    command = cpp_command(program, port)
    async with running(command, port, real.folder / "cpp.log") as process:
        await real.until("cpp", "half-open", "closed")
        await both_ways(real, "cpp")
        assert await real.state("cpp") == "closed"
        await leave(real, port)
        async with real.house.chat(LONG, model="cpp", stream=True, max_tokens=1000) as response:
            begun = await response.content.readany()
            process.kill()
            whole = begun + await response.content.read()
        assert events(whole)[-1]["error"]["code"] == "expert_failed"
    assert await real.state("cpp") == "open"
    before = time.monotonic()
    async with real.house.chat("Hello?", model="cpp") as response:
        assert response.status == 502
    assert time.monotonic() - before < FIRST_TOKEN_SECONDS
    async with running(command, port, real.folder / "cpp.log"):
        await real.until("cpp", "half-open")
        await both_ways(real, "cpp")
        assert await real.state("cpp") == "closed"


async def test_llama_cpp_pythons_server_is_an_expert(real: Houses) -> None:
    port = real.ports["python"]
    async with running(python_command(port), port, real.folder / "python.log"):
        await both_ways(real, "python")


async def good(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    if head.startswith(b"POST"):
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        streamed = json.loads(await reader.readexactly(length)).get("stream")
        if streamed:
            await begin_stream(writer, CHUNK + b"data: [DONE]\n\n")
            writer.write(b"0\r\n\r\n")
        else:
            await whole(writer, {"choices": [{"index": 0, "message": {"content": "good"}}]})
    else:
        await whole(writer, {"data": []})
    writer.close()


async def whole(writer: asyncio.StreamWriter, body: Any) -> None:
    raw = json.dumps(body).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(raw)}\r\n\r\n"
    writer.write(head.encode() + raw)
    await writer.drain()


async def begin_stream(writer: asyncio.StreamWriter, chunk: bytes) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    await piece(writer, chunk)


async def piece(writer: asyncio.StreamWriter, chunk: bytes) -> None:
    writer.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
    await writer.drain()


async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take the request and never answer."""
    while await reader.read(65536):
        pass
    writer.close()


async def drip(writer: asyncio.StreamWriter, send: Callable[[], Awaitable[None]]) -> None:
    try:
        for _ in range(300):
            await send()
            await asyncio.sleep(0.1)
    except ConnectionError:
        pass
    finally:
        writer.close()


async def loris(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Begin a stream and send a comment now and then, but never a token."""
    await reader.readuntil(b"\r\n\r\n")
    await begin_stream(writer, b": wait\n\n")
    await drip(writer, lambda: piece(writer, b":\n"))


async def headers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send headers one after another, without an end."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n")

    async def send() -> None:
        writer.write(b"X-Wait: 1\r\n")
        await writer.drain()

    await drip(writer, send)


async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Stream one token and stop."""
    await reader.readuntil(b"\r\n\r\n")
    await begin_stream(writer, CHUNK)
    await mute(reader, writer)


BEHAVIOURS: dict[str, Behaviour] = {"good": good, "mute": mute, "loris": loris, "stall": stall, "headers": headers}


@pytest.mark.parametrize("name", ["mute", "loris", "headers"])
async def test_who_does_not_answer_in_time_is_replaced(bad: Houses, name: str) -> None:
    async with bad.house.chat("Hello", model=name, stream=True) as response:
        stream = await response.read()
        assert response.headers["X-Rouse-Expert"] != name, stream
    assert name in [attempt["expert"] for attempt in events(stream)[0]["rouse"]["attempts"][:-1]]
    assert await bad.state(name) == "open"
    async with bad.house.chat("Hello", model=name) as response:
        told = (await response.json())["rouse"]
    assert (told["expert"], len(told["attempts"])) == ("good", 1), "the next request pays nothing"


async def test_who_stops_in_the_middle_is_given_up(bad: Houses) -> None:
    async with bad.house.chat("Hello", model="stall", stream=True) as response:
        stream = await response.read()
    assert events(stream)[-1]["error"]["code"] == "expert_failed"
    assert await bad.state("stall") == "open"
