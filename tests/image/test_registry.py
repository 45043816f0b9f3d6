"""Publishing to a real registry (Debian's docker-registry) on loopback, with a name and a password."""

import asyncio
import contextlib
import hashlib
import io
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Self

import aiohttp
import pytest
import pytest_asyncio

from image_build.errors import RegistryError
from image_build.oci import LAYER_TYPE, MANIFEST_TYPE, Blob, make_oci
from image_build.publishing import ARTIFACT_TYPE, Credentials, publish
from image_build.registry import Registry, Target
from image_build.sandbox import Sandbox
from image_build.signing import write_checksums
from tests.image.conftest import free_port

pytestmark = pytest.mark.image

USER = Credentials("house", "test-password")
# bcrypt of that password.
_ACCOUNTS = "house:$2b$05$abcdefghijklmnopqrstuu34chBxBG/k9ApCErH1wl/WrV4FVTS/q\n"
_CONFIGURATION = """
version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: /run/registry/store}}, delete: {{enabled: true}}}}
http: {{addr: "127.0.0.1:{port}"}}
auth: {{htpasswd: {{realm: test, path: /run/registry/accounts}}}}
"""


@pytest_asyncio.fixture
async def registry(tools: Sandbox, tmp_path: Path) -> AsyncIterator[str]:
    """Host and port of a registry that is empty."""
    port = free_port()
    folder = tmp_path / "registry"
    (folder / "store").mkdir(parents=True)
    (folder / "accounts").write_text(_ACCOUNTS)
    (folder / "config.yml").write_text(_CONFIGURATION.format(port=port))
    command = tools.command(
        ["docker-registry", "serve", "/run/registry/config.yml"],
        binds={folder: "/run/registry"},
        network=True,
        own_processes=False,
    )
    with (tmp_path / "registry.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log)
    try:
        async with asyncio.timeout(60), aiohttp.ClientSession() as http:
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    async with http.get(f"http://127.0.0.1:{port}/v2/") as answer:
                        assert answer.status == 401
                        break
                await asyncio.sleep(0.1)
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        await process.wait()


@pytest.fixture
def build(tmp_path: Path) -> Path:
    """A small build: everything that is published, with made-up contents."""
    root = tmp_path / "root"
    (root / "usr" / "bin").mkdir(parents=True)
    (root / "usr" / "bin" / "rouse").write_text("#!/bin/sh\n")
    (root / "bin").symlink_to("usr/bin")
    folder = tmp_path / "out"
    folder.mkdir()
    make_oci(root, folder / "rouse_1.0_amd64.oci.tar", version="1.0", architecture="amd64", epoch=1)
    (folder / "rouse_1.0_amd64.raw.zst").write_bytes(os.urandom(20_000_000))
    manifest = {
        "version": "1.0",
        "architecture": "amd64",
        "root_hash": "0" * 64,
        "source_date_epoch": 1,
        "var_size": 1,
    }
    (folder / "rouse_1.0_amd64.json").write_text(json.dumps(manifest))
    write_checksums(folder)
    return folder


async def _publish(folder: Path, target: str, credentials: Credentials | None = USER) -> list[str]:
    return await publish(
        folder, target, plain_http=True, credentials=credentials, on_step=lambda _: None, on_line=lambda _: None
    )


async def test_both_images_are_there_afterwards(registry: str, build: Path) -> None:
    references = await _publish(build, f"{registry}/rouse")
    assert [reference.partition("@")[0] for reference in references] == [
        f"{registry}/rouse:1.0",
        f"{registry}/rouse:1.0-disk",
    ]
    async with aiohttp.ClientSession(headers={"Authorization": USER.header()}) as http:
        accept = {"Accept": MANIFEST_TYPE}
        async with http.get(f"http://{registry}/v2/rouse/manifests/1.0-disk", headers=accept) as answer:
            manifest = json.loads(await answer.read())
        assert manifest["artifactType"] == ARTIFACT_TYPE
        titles = {layer["annotations"]["org.opencontainers.image.title"]: layer for layer in manifest["layers"]}
        disk = titles["rouse_1.0_amd64.raw.zst"]
        async with http.get(f"http://{registry}/v2/rouse/blobs/{disk['digest']}") as answer:
            assert await answer.read() == (build / "rouse_1.0_amd64.raw.zst").read_bytes()
        async with http.get(f"http://{registry}/v2/rouse/manifests/1.0", headers=accept) as answer:
            assert json.loads(await answer.read())["layers"][0]["mediaType"] == LAYER_TYPE


async def test_again_sends_nothing_large(registry: str, build: Path) -> None:
    await _publish(build, f"{registry}/rouse")
    lines: list[str] = []
    await publish(
        build,
        f"{registry}/rouse",
        plain_http=True,
        credentials=USER,
        on_step=lambda _: None,
        on_line=lines.append,
    )
    # One line a file: it was there at once.
    assert len(lines) == len(set(lines))


async def test_a_wrong_password_is_one_clear_error(registry: str, build: Path) -> None:
    with pytest.raises(RegistryError, match="name and password are wrong"):
        await _publish(build, f"{registry}/rouse", Credentials("house", "wrong"))


async def test_no_password_is_one_clear_error(registry: str, build: Path) -> None:
    with pytest.raises(RegistryError, match="wants a name and a password"):
        await _publish(build, f"{registry}/rouse", None)


async def test_a_broken_connection_does_not_end_an_upload(registry: str) -> None:
    data = os.urandom(20_000_000)
    blob = Blob(LAYER_TYPE, hashlib.sha256(data).hexdigest(), len(data))
    async with _BreakingProxy(registry, after=12_000_000) as proxy, aiohttp.ClientSession() as http:
        client = Registry(http, Target(proxy.address, "rouse"), plain_http=True, credentials=USER, pause=0.01)
        progress: list[int] = []
        await client.push_blob(io.BytesIO(data), blob, progress.append)
        assert await client.has_blob(blob.digest)
    assert proxy.broken == 1
    assert progress[-1] == len(data)


async def test_what_is_not_its_digest_is_refused(registry: str) -> None:
    blob = Blob(LAYER_TYPE, "0" * 64, 5)
    async with aiohttp.ClientSession() as http:
        client = Registry(http, Target(registry, "rouse"), plain_http=True, credentials=USER)
        with pytest.raises(RegistryError, match="DIGEST_INVALID"):
            await client.push_blob(io.BytesIO(b"hello"), blob, lambda _: None)


async def test_nobody_there_is_one_clear_error() -> None:
    blob = Blob(LAYER_TYPE, "0" * 64, 5)
    async with aiohttp.ClientSession() as http:
        client = Registry(http, Target(f"127.0.0.1:{free_port()}", "rouse"), plain_http=True, pause=0.01)
        with pytest.raises(RegistryError, match="can't be reached"):
            await client.push_blob(io.BytesIO(b"hello"), blob, lambda _: None)


class _BreakingProxy:
    """Passes bytes on to the registry, and breaks the connection once, after so many of them."""

    def __init__(self, target: str, *, after: int) -> None:
        self._host, _, port = target.partition(":")
        self._port = int(port)
        self._left = after
        self.broken = 0
        self.address = ""
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        there_reader, there_writer = await asyncio.open_connection(self._host, self._port)
        back = asyncio.create_task(self._pass(there_reader, writer))
        try:
            while data := await reader.read(1 << 16):
                self._left -= len(data)
                if self._left < 0 and not self.broken:
                    self.broken += 1
                    break
                there_writer.write(data)
                await there_writer.drain()
        finally:
            back.cancel()
            writer.transport.abort()
            there_writer.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            # The addresses in the answers lead back here.
            writer.write(data.replace(f":{self._port}/".encode(), f":{self.address.partition(':')[2]}/".encode()))
            await writer.drain()
