"""A file server that misbehaves as it is told, on a raw socket."""

import asyncio
import hashlib
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

type Respond = Callable[["Request", asyncio.StreamWriter], Awaitable[None]]


def gguf(size: int, seed: bytes = b"a") -> bytes:
    """Return so many bytes that begin as a GGUF file does."""
    head = struct.pack("<4sIQQ", b"GGUF", 3, 1, 1)
    blocks = (hashlib.sha256(seed + number.to_bytes(4)).digest() for number in range(size // 32 + 1))
    return (head + b"".join(blocks))[:size]


@dataclass(frozen=True)
class Request:
    path: str
    headers: dict[str, str]

    @property
    def offset(self) -> int:
        """Where the asked range begins; 0 without one."""
        return int(self.headers.get("range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))


@dataclass
class Source:
    """A running server: what it was asked, and how it answers."""

    url: str
    requests: list[Request] = field(default_factory=list)
    plan: list[Respond] = field(default_factory=list)
    """How to answer the first requests; the last one answers all that follow."""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.strip().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            request = Request(first.split()[1], headers)
            self.requests.append(request)
            await self.plan[min(len(self.requests), len(self.plan)) - 1](request, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def running_source() -> AsyncIterator[Source]:
    source = Source("")
    server = await asyncio.start_server(source.handle, "127.0.0.1", 0)
    source.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield source
    finally:
        server.close()
        server.close_clients()


async def send(writer: asyncio.StreamWriter, status: int, headers: dict[str, str | int], body: bytes = b"") -> None:
    lines = [f"HTTP/1.1 {status} x", *(f"{name}: {value}" for name, value in headers.items()), "Connection: close"]
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
    await writer.drain()


def error(status: int, **headers: str | int) -> Respond:
    async def respond(_: Request, writer: asyncio.StreamWriter) -> None:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        await send(writer, status, {"Content-Length": 0, **fields})

    return respond


def serve(
    data: bytes,
    *,
    cut: int | None = None,
    etag: str | None = '"one"',
    ranges: bool = True,
    if_range: bool = True,
    length: int | None = None,
    extra: dict[str, str | int] | None = None,
    hold: asyncio.Event | None = None,
) -> Respond:
    """Answer with a file as RFC 9110 says, except for what is told otherwise.

    `cut` closes the connection after so many body bytes; `length` is a lie about the length; `hold` keeps the
    connection open after what was sent.
    """

    async def respond(request: Request, writer: asyncio.StreamWriter) -> None:
        same = not if_range or request.headers.get("if-range", etag) == etag
        offset = request.offset if ranges and same else 0
        headers: dict[str, str | int] = {"ETag": etag} if etag else {}
        if offset >= len(data):
            await send(writer, 416, {"Content-Range": f"bytes */{len(data)}", "Content-Length": 0, **headers})
            return
        body = data[offset:]
        headers["Content-Length"] = len(body) if length is None else length
        if offset:
            headers["Content-Range"] = f"bytes {offset}-{len(data) - 1}/{len(data)}"
        await send(writer, 206 if offset else 200, {**headers, **(extra or {})}, body[:cut])
        if hold is not None:
            await hold.wait()

    return respond


def redirect(location: str, status: int = 302, **headers: str) -> Respond:
    async def respond(_: Request, writer: asyncio.StreamWriter) -> None:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        await send(writer, status, {"Location": location, "Content-Length": 0, **fields})

    return respond
