"""Registries that keep to the specification, and some that do not."""

import hashlib
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from image_build.errors import RegistryError
from image_build.oci import LAYER_TYPE, MANIFEST_TYPE, Blob
from image_build.registry import Credentials, Registry, Target

DATA = bytes(range(256)) * 100_000
BLOB = Blob(LAYER_TYPE, hashlib.sha256(DATA).hexdigest(), len(DATA))
UPLOAD = "/v2/rouse/blobs/uploads/1"

type Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def registry(handler: Handler, credentials: Credentials | None = None) -> AsyncIterator[Registry]:
    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/{tail:.*}", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    async with aiohttp.ClientSession() as http:
        yield Registry(
            http, Target(f"127.0.0.1:{port}", "rouse"), plain_http=True, credentials=credentials, pause=0.001
        )
    await runner.cleanup()


class Conforming:
    """Keeps what came of a piece that broke off, and says so, as the specification has it."""

    def __init__(self, *, breaks: int) -> None:
        self.stored = b""
        self.breaks = breaks
        self.pieces: list[int] = []

    async def serve(self, request: web.Request) -> web.StreamResponse:
        plain = {"HEAD": 404, "POST": 202, "GET": 204}
        if request.method in plain:
            return web.Response(status=plain[request.method], headers=self._reached())
        if request.method == "PUT":
            same = request.query["digest"] == f"sha256:{hashlib.sha256(self.stored).hexdigest()}"
            return web.Response(status=201 if same else 400)
        start = int(request.headers["Content-Range"].partition("-")[0])
        self.pieces.append(start)
        if start != len(self.stored):
            return web.Response(status=416, headers=self._reached())
        body = await request.read()
        if self.breaks:
            self.breaks -= 1
            self.stored += body[: len(body) // 2]
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        self.stored += body
        return web.Response(status=202, headers=self._reached())

    def _reached(self) -> dict[str, str]:
        return {"Location": UPLOAD, "Range": f"0-{max(len(self.stored) - 1, 0)}"}


async def test_an_upload_goes_on_in_the_middle_of_a_piece() -> None:
    server = Conforming(breaks=2)
    async with registry(server.serve) as client:
        await client.push_blob(io.BytesIO(DATA), BLOB, lambda _: None)
    assert server.stored == DATA
    assert server.pieces.count(0) == 1
    assert any(start % (8 << 20) for start in server.pieces)


async def test_what_is_there_is_not_sent() -> None:
    async def serve(request: web.Request) -> web.StreamResponse:
        assert request.method == "HEAD"
        return web.Response(status=200)

    async with registry(serve) as client:
        await client.push_blob(io.BytesIO(DATA), BLOB, lambda _: None)


async def test_an_upload_that_always_breaks_off_ends() -> None:
    async with registry(Conforming(breaks=1000).serve) as client:
        with pytest.raises(RegistryError, match=r"again and again|with 4\d\d"):
            await client.push_blob(io.BytesIO(DATA), BLOB, lambda _: None)


@pytest.mark.parametrize(
    "location", [None, "http://[", "http://other.invalid/upload", "//other.invalid/x", "ftp://127.0.0.1/x"]
)
async def test_the_password_goes_to_no_other_server(location: str | None) -> None:
    async def serve(request: web.Request) -> web.StreamResponse:
        if "Authorization" not in request.headers:
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="test"'})
        if request.method == "HEAD":
            return web.Response(status=404)
        return web.Response(status=202, headers={} if location is None else {"Location": location})

    async with registry(serve, Credentials("house", "secret")) as client:
        with pytest.raises(RegistryError, match=r"another server|where to upload|place to upload"):
            await client.push_blob(io.BytesIO(DATA), BLOB, lambda _: None)


@pytest.mark.parametrize(
    "challenge",
    ["", "Negotiate", "Bearer", 'Bearer realm="ftp://127.0.0.1/"', 'Bearer realm="http://127.0.0.1:1/"'],
)
async def test_an_unknown_log_in_is_one_clear_error(challenge: str) -> None:
    async def serve(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=401, headers={"WWW-Authenticate": challenge})

    async with registry(serve, Credentials("house", "secret")) as client:
        with pytest.raises(RegistryError) as caught:
            await client.has_blob(BLOB.digest)
    assert "secret" not in str(caught.value)


async def test_a_token_is_fetched_where_the_registry_says() -> None:
    asked: list[str] = []

    async def serve(request: web.Request) -> web.StreamResponse:
        if request.path == "/token":
            asked.append(request.query["scope"])
            return web.json_response({"token": "abc"})
        if request.headers.get("Authorization") == "Bearer abc":
            return web.Response(status=200)
        realm = f'Bearer realm="http://{request.host}/token",service="x",scope="repository:rouse:pull,push"'
        return web.Response(status=401, headers={"WWW-Authenticate": realm})

    async with registry(serve, Credentials("house", "secret")) as client:
        assert await client.has_blob(BLOB.digest)
    assert asked == ["repository:rouse:pull,push"]


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (403, b"", "does not let you write"),
        (400, b'{"errors": [{"code": "NAME_INVALID", "message": "no"}]}', "NAME_INVALID no"),
        (400, b"<html>", "with 400"),
        (400, b"[" * 10_000, "with 400"),
        (400, b'{"errors": [1, {}, null]}', "with 400"),
        (500, b"", "with 500"),
        (302, b"", "with 302"),
    ],
)
async def test_an_error_is_one_line(status: int, body: bytes, message: str) -> None:
    async def serve(_request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, body=body)

    async with registry(serve) as client:
        with pytest.raises(RegistryError, match=message) as caught:
            await client.push_manifest(b"{}", MANIFEST_TYPE, "1.0")
    assert "\n" not in str(caught.value)


async def test_a_manifest_that_comes_back_different_is_an_error() -> None:
    async def serve(request: web.Request) -> web.StreamResponse:
        if request.method == "PUT":
            return web.Response(status=201)
        return web.Response(body=json.dumps({"other": 1}).encode())

    async with registry(serve) as client:
        with pytest.raises(RegistryError, match="gives back another manifest"):
            await client.push_manifest(b"{}", MANIFEST_TYPE, "1.0")


@pytest.mark.parametrize("text", ["", "rouse", "http://host/rouse", "host/", "host/../x", "host/a b", "host:x/a"])
def test_what_is_no_repository_is_refused(text: str) -> None:
    with pytest.raises(RegistryError, match="is no registry and repository"):
        Target.parse(text)


def test_a_password_is_not_shown() -> None:
    assert "secret" not in repr(Credentials("house", "secret"))
