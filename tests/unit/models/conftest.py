import asyncio
import hashlib
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from appliance.models.adding import Added, Adder, Sources
from appliance.models.catalogue import Model
from appliance.models.download import Limits, Progress
from appliance.models.folder import ModelFolder
from appliance.models.transport import Transport
from tests.unit.models.source import Source, gguf, running_source

NAME = "m.gguf"
QUICK = Limits(failures=4, attempts=40, backoff=0.001, wait=1.0, size=10_000_000)


@pytest.fixture(autouse=True)
def _bounded() -> Iterator[None]:
    """No test may hang."""

    def stop(*_: object) -> None:
        raise TimeoutError("the test took longer than a minute")

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 60)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, previous)


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests know no proxy, no token and no index of the machine."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "HF_TOKEN", "HF_ENDPOINT", "PIP_INDEX_URL", "UV_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def good() -> bytes:
    return gguf(300_000)


@pytest.fixture
def folder(tmp_path: Path, good: bytes) -> Iterator[ModelFolder]:
    """A models folder that must never hold anything but right files under final names."""
    folder = ModelFolder(tmp_path / "models")
    with folder.lock():
        yield folder
    for path in folder.path.glob("*.gguf"):
        assert path.read_bytes() == good, f"{path.name} is not what it should be"


@pytest.fixture
async def source() -> AsyncIterator[Source]:
    async with running_source() as running:
        yield running


class Client:
    """Adds from a source to a folder."""

    def __init__(self, folder: ModelFolder, source: Source, session: aiohttp.ClientSession, good: bytes) -> None:
        self.folder = folder
        self.source = source
        self.session = session
        self.sha256 = hashlib.sha256(good).hexdigest()

    def adder(self, *, environ: dict[str, str] | None = None, limits: Limits = QUICK, **sources: Any) -> Adder:
        return Adder(
            self.folder,
            transport=Transport(self.session),
            sources=Sources(environ or {"HF_ENDPOINT": self.source.url}, **sources),
            limits=limits,
            progress=Progress(),
        )

    async def url(self, path: str = "/m.gguf", **options: Any) -> Added:
        """Add the URL's file, whose checksum is known unless told otherwise."""
        options.setdefault("sha256", self.sha256)
        return await self.adder().url(URL(self.source.url + path), NAME, **options)

    async def model(self, model: Model, **options: Any) -> list[Added]:
        return await self.adder(**options).model(model)

    @property
    def part(self) -> Path:
        return self.folder.part_path(NAME)


@pytest.fixture
async def client(folder: ModelFolder, source: Source, good: bytes) -> AsyncIterator[Client]:
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=2, sock_read=0.5)
    async with aiohttp.ClientSession(
        timeout=timeout, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
    ) as session:
        yield Client(folder, source, session, good)
    await asyncio.sleep(0)
