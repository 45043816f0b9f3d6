"""Connections to the house's own experts are kept, and one that is stale costs nobody an answer."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.unit.gateway.conftest import Gateway, answers, text_of, whole


class RawExpert:
    """An expert that counts connections and closes them when told to."""

    def __init__(self) -> None:
        self.connections = 0
        self.requests = 0
        self.drop_next = False
        """Whether to close the connection when the next request comes on one that was used before."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        used = False
        try:
            while head := await _head(reader):
                length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
                if used and self.drop_next:
                    self.drop_next = False
                    return
                used = True
                self.requests += 1
                body = json.dumps(whole("raw")).encode()
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
                )
                writer.write(body)
                await writer.drain()
        finally:
            writer.close()


async def _head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""


@pytest.fixture
async def expert(gateway: Gateway) -> AsyncIterator[RawExpert]:
    raw = RawExpert()
    server = await asyncio.start_server(raw.serve, "127.0.0.1", 0)
    port: Any = server.sockets[0].getsockname()[1]
    await gateway.announce("raw", f"http://127.0.0.1:{port}/v1")
    yield raw
    server.close()
    server.close_clients()


async def ask(gateway: Gateway) -> tuple[str, str]:
    async with gateway.post(model="raw") as response:
        return await text_of(response), response.headers["X-Rouse-Attempts"]


async def test_a_connection_is_used_again(gateway: Gateway, expert: RawExpert) -> None:
    for _ in range(3):
        assert await ask(gateway) == ("raw", "1")
    assert (expert.connections, expert.requests) == (1, 3)


async def test_a_stale_connection_is_no_failure_of_the_expert(gateway: Gateway, expert: RawExpert) -> None:
    await gateway.add("spare", answers("spare"))
    assert await ask(gateway) == ("raw", "1")
    expert.drop_next = True
    assert await ask(gateway) == ("raw", "1")
    assert (expert.connections, expert.requests) == (2, 2)
