"""Where versions are published: a folder over HTTPS, or a folder of this machine."""

import asyncio
import shutil
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import aiohttp
from yarl import URL

from appliance.models.download import Download, Limits, Progress, Wanted
from appliance.models.errors import IntegrityError, ModelError
from appliance.models.errors import SpaceError as DiskFullError
from appliance.models.part import PartFile, PartState, file_sha256, publish
from appliance.models.transport import Target, Transport, parse_url, plain
from appliance.settings.updates import UpdateSettings
from appliance.updates.errors import SignatureError, SourceError, SpaceError
from appliance.updates.published import PublishedFile

_BLOCK = 1 << 20
_TIMEOUT = aiohttp.ClientTimeout(total=None, connect=30, sock_read=60)
_EFI_MAGIC = b"MZ"
_PATIENT = Limits(failures=8)

type OnBytes = Callable[[int, int | None], None]
"""Called with the bytes of a file that are here, and of how many."""
type Room = Callable[[int], None]
"""Raises SpaceError when so many bytes find no room."""


class Source(Protocol):
    """What versions are taken from."""

    async def small(self, name: str, most: int) -> bytes:
        """Return a small file. Raises SourceError, also when it has more than `most` bytes."""

    async def fetch(self, file: PublishedFile, target: Path, *, most: int, on_bytes: OnBytes, room: Room) -> None:
        """Bring a file, its hash verified; what was there of it already is not asked for again.

        Raises:
            SourceError: it can't be had, or has more than `most` bytes. What came is kept.
            SignatureError: it is not what its hash says.
            SpaceError: it finds no room.
        """


class WebSource:
    """A folder over HTTPS. Downloads go on where they were cut (RFC 9110, section 14)."""

    def __init__(self, base: URL, transport: Transport, *, http: aiohttp.ClientSession) -> None:
        """Take the folder's address and how to ask."""
        self._base = base
        self._transport = transport
        self._http = http

    async def small(self, name: str, most: int) -> bytes:
        """Return a small file."""
        url = self._base / name
        found = bytearray()
        try:
            async with asyncio.timeout(120), self._transport.get(Target(url), {}) as answer:
                if answer.response.status != 200:
                    raise SourceError(f"{plain(url)}: the source answers {answer.response.status}")
                async for chunk in answer.response.content.iter_chunked(_BLOCK):
                    found += chunk
                    if len(found) > most:
                        raise SourceError(f"{plain(url)}: has more than {most} bytes")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise SourceError(f"{plain(url)}: {_words(error)}") from error
        except ModelError as error:
            raise SourceError(str(error)) from error
        return bytes(found)

    async def fetch(self, file: PublishedFile, target: Path, *, most: int, on_bytes: OnBytes, room: Room) -> None:
        """Bring a file."""
        url = self._base / file.name
        wanted = Wanted(Target(url), None, file.sha256, _EFI_MAGIC if file.kind == "efi" else b"")
        path = target.with_name(target.name + ".part")
        limits = Limits(failures=_PATIENT.failures, size=most)
        try:
            with PartFile(path, PartState(source=plain(url))) as part:
                await Download(
                    wanted,
                    part,
                    transport=self._transport,
                    limits=limits,
                    progress=Progress(total=on_bytes),
                    room=room,
                ).run()
            await asyncio.to_thread(publish, path, target)
        except DiskFullError as error:
            raise SpaceError(str(error)) from error
        except IntegrityError as error:
            raise SignatureError(str(error)) from error
        except ModelError as error:
            raise SourceError(str(error)) from error
        except OSError as error:
            raise SourceError(f"{target}: can't be written: {_words(error)}") from error


class FolderSource:
    """A folder of this machine: a USB stick, a share."""

    def __init__(self, folder: Path) -> None:
        """Take the folder."""
        self._folder = folder

    async def small(self, name: str, most: int) -> bytes:
        """Return a small file."""
        return await asyncio.to_thread(self._read, self._folder / name, most)

    async def fetch(self, file: PublishedFile, target: Path, *, most: int, on_bytes: OnBytes, room: Room) -> None:
        """Bring a file."""
        await asyncio.to_thread(self._copy, file, target, most, on_bytes, room)

    def _read(self, path: Path, most: int) -> bytes:
        try:
            with path.open("rb") as file:
                found = file.read(most + 1)
        except OSError as error:
            raise SourceError(f"{path}: {error.strerror}") from error
        if len(found) > most:
            raise SourceError(f"{path}: has more than {most} bytes")
        return found

    def _copy(self, file: PublishedFile, target: Path, most: int, on_bytes: OnBytes, room: Room) -> None:
        source, draft = self._folder / file.name, target.with_name(target.name + ".part")
        try:
            size = source.stat().st_size
            if size > most:
                raise SourceError(f"{source}: has {size} bytes, and its place on the disk has {most}")
            room(size)
            with source.open("rb") as reader, draft.open("wb") as writer:
                copied = 0
                while block := reader.read(_BLOCK):
                    writer.write(block)
                    copied += len(block)
                    on_bytes(copied, size)
            if file_sha256(draft, lambda _: None) != file.sha256:
                draft.unlink()
                raise SignatureError(f"{source}: is not what was signed")
            publish(draft, target)
        except ModelError as error:
            raise SpaceError(str(error)) from error
        except OSError as error:
            raise SourceError(f"{source}: can't be copied: {error.strerror}") from error


@asynccontextmanager
async def opened(settings: UpdateSettings) -> AsyncIterator[Source]:
    """Open the source that the settings name.

    Raises:
        SourceError: they name none, or it makes no sense.
    """
    if settings.source is None:
        raise SourceError("nobody has said where updates come from: set updates.source")
    if settings.source.startswith("/"):
        yield FolderSource(Path(settings.source) / (settings.channel or ""))
        return
    context = await asyncio.to_thread(_tls, settings)
    connector = aiohttp.TCPConnector(ssl=context)
    async with aiohttp.ClientSession(connector=connector, timeout=_TIMEOUT) as http:
        transport = Transport(http, insecure=settings.allow_http, permission="updates.allow_http")
        try:
            base = parse_url(settings.source)
            base = base / settings.channel if settings.channel else base
            transport.check(base)
        except ModelError as error:
            raise SourceError(f"updates.source: {error}") from error
        yield WebSource(base, transport, http=http)


def _tls(settings: UpdateSettings) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=settings.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise SourceError(f"updates.ca_file: {settings.ca_file} can't be read: {_words(error)}") from error


def free_room(folder: Path, reserve: int) -> Room:
    """Return what raises SpaceError when a folder's disk has no room for so many bytes, and a reserve beside them."""

    def check(size: int) -> None:
        free = shutil.disk_usage(folder).free
        if free < size + reserve:
            raise SpaceError(
                f"{folder}: {(size + reserve) / 1e6:.0f} MB are needed for an update and {free / 1e6:.0f} MB are free"
            )

    return check


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
