"""Requests as bytes, so that they can be wrong in ways that no HTTP client allows."""

import asyncio
import contextlib
import random
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

type Fault = Literal["none", "slow", "half", "leaves", "no HTTP"]

NO_METHODS = ("get", "BREW")
METHODS = ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", *NO_METHODS)
TARGETS = ("", "/", "?x=%00", "/..", "%2e%2e", "?" + "a" * 5000, "#f", "%ff", "//")
HEADERS = (
    "Content-Type: text/plain", "Content-Type: application/json; charset=nonsense", "Content-Type: ;;;",
    "Content-Encoding: gzip", "Content-Encoding: deflate", "Content-Encoding: br", "Accept: */*", "Expect: tea",
    "Expect: 100-continue", "Range: bytes=0-1", "Upgrade: websocket", "Connection: upgrade", "X: " + "a" * 9000,
    "Cookie: \xff=\x01", "Content-Length: 7", "Transfer-Encoding: chunked", "Transfer-Encoding: tea",
    "Host: a, b", "X-Forwarded-For: 1.1.1.1", "Content-Type: multipart/form-data; boundary=x",
)  # fmt: skip
NO_HTTP = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET\r\n\r\n", b"\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n",
    b"POST /v1/chat/completions HTTP/1.1\r\nno colon\r\n\r\n", b"\x00" * 100,
    b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n",
    b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class RawRequest:
    """What is sent, and how."""

    data: bytes
    fault: Fault
    tidy: bool
    """Whether head and length are as HTTP wants them, so that a clear answer is due."""


@dataclass(frozen=True, slots=True)
class RawResponse:
    """What came back: status 0 if the connection was closed without an answer."""

    status: int
    content_type: str
    body: bytes


def requests(method: str, path: str, bodies: SearchStrategy[bytes], key: str) -> SearchStrategy[RawRequest]:
    """Return requests for an endpoint, most of them wrong in one way or another."""

    def build(body: bytes, seed: int) -> RawRequest:
        chance = random.Random(seed)
        if chance.random() < 0.03:
            return RawRequest(chance.choice(NO_HTTP), "no HTTP", tidy=False)
        verb = method if chance.random() < 0.85 else chance.choice(METHODS)
        target = path if chance.random() < 0.9 else path + chance.choice(TARGETS)
        authorization = key if chance.random() < 0.9 else chance.choice(("", "wrong", key[:-1], key + "\xe9"))
        odd = chance.sample(HEADERS, chance.choice((0, 0, 0, 1, 2)))
        lines = [f"{verb} {target} HTTP/1.1", "Host: x", f"Authorization: Bearer {authorization}", *odd]
        lines += [f"Content-Length: {len(body)}", "Connection: close", "", ""]
        fault: Fault = chance.choices(("none", "slow", "half", "leaves"), (88, 4, 4, 4))[0]
        tidy = not odd and target == path and verb not in NO_METHODS
        return RawRequest("\r\n".join(lines).encode("latin-1") + body, fault, tidy)

    return st.builds(build, bodies, st.integers(0, 2**64))


async def send(url: str, request: RawRequest, *, patience: float) -> RawResponse | None:
    """Send a request; None if the client left, or lost its patience, before the answer was whole."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        half = len(request.data) // 2
        try:
            if request.fault in {"slow", "half", "leaves"}:
                writer.write(request.data[:half])
                await writer.drain()
                await asyncio.sleep(0.02)
            if request.fault == "leaves":
                return None
            if request.fault == "half":
                writer.write_eof()
            else:
                writer.write(request.data[half:] if request.fault == "slow" else request.data)
            await writer.drain()
            async with asyncio.timeout(patience):
                return _parsed(await reader.read())
        except TimeoutError:
            return None
        except ConnectionError:
            return RawResponse(0, "", b"")
    finally:
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def _parsed(data: bytes) -> RawResponse:
    head, _, body = data.partition(b"\r\n\r\n")
    while head.startswith(b"HTTP/1.1 100"):
        head, _, body = body.partition(b"\r\n\r\n")
    if not head:
        return RawResponse(0, "", b"")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return RawResponse(int(first.split()[1]), headers.get("content-type", ""), body)
