"""A web server with the versions of one folder at a time, that can break off, and lie."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from appliance.http_server import http_runner

ADDRESS = "10.0.2.100:80"
"""Where machines see it."""
_BLOCK = 1 << 20


@dataclass
class Asked:
    """A file that was asked for."""

    name: str
    begin: int
    """Where the asked range began."""
    sent: int = 0
    """Bytes that were sent; more than arrived, where the connection broke."""


@dataclass
class Publisher:
    """What is published, and what was asked for."""

    folder: Path
    lies: dict[str, bytes] = field(default_factory=dict)
    """Contents for files of these endings, instead of the folder's."""
    cut_after: dict[str, int] = field(default_factory=dict)
    """Bytes after which the next answer with a file of this ending breaks off, once."""
    asked: list[Asked] = field(default_factory=list)
    port: int = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        lie = next((content for ending, content in self.lies.items() if name.endswith(ending)), None)
        path = self.folder / name
        if lie is None and not path.is_file():
            raise web.HTTPNotFound
        size = path.stat().st_size if lie is None else len(lie)
        begin = request.http_range.start or 0
        asked = Asked(name, begin)
        self.asked.append(asked)
        headers = {"Content-Length": str(size - begin), "ETag": f'"{self.folder.name}-{name}"'}
        if begin:
            headers["Content-Range"] = f"bytes {begin}-{size - 1}/{size}"
        response = web.StreamResponse(status=206 if begin else 200, headers=headers)
        await response.prepare(request)
        ending = next((ending for ending in self.cut_after if name.endswith(ending)), None)
        most = self.cut_after.pop(ending) if ending is not None else size
        if lie is not None:
            await response.write(lie[begin:])
            asked.sent = len(lie) - begin
        else:
            with path.open("rb") as file:
                file.seek(begin)
                while asked.sent < most and (block := file.read(min(_BLOCK, most - asked.sent))):
                    await response.write(block)
                    asked.sent += len(block)
        if most < size and request.transport is not None:
            request.transport.abort()
        return response

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["Publisher"]:
        application = web.Application()
        application.router.add_get("/{name}", self.answer)
        runner = http_runner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.port = runner.addresses[0][1]
        try:
            yield self
        finally:
            await runner.cleanup()
