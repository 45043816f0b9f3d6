"""An expert that a test plays: the HTTP server is here, and the process that the daemon starts only says so."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from appliance.http_server import http_runner


class PlayedExpert:
    """Answers /health as it is told to, and counts what was saved."""

    def __init__(self) -> None:
        self.url = ""
        self.health: dict[str, Any] = {
            "status": "ok",
            "active": 0,
            "queued": 0,
            "generated_tokens": 0,
            "idle_seconds": 0.0,
        }
        self.saves = 0
        self.busy_after_saving = False
        """A request comes at the last moment."""
        self.keys: list[str] = []
        self.may_save = asyncio.Event()
        """Cleared, a save takes for ever."""
        self.may_save.set()

    @property
    def command(self) -> tuple[str, ...]:
        """What the daemon runs instead of `rouse expert`, before the expert's name."""
        ready = json.dumps({"url": self.url, "model": "m", "context": 512, "slots": 2, "capabilities": ["chat"]})
        return (sys.executable, "-c", f"import sys; print({ready!r}, flush=True); sys.stdin.read()")

    def is_idle(self, seconds: float) -> None:
        self.health |= {"active": 0, "queued": 0, "idle_seconds": seconds}

    def is_busy(self) -> None:
        self.health |= {"active": 1, "idle_seconds": 0.0}

    async def _health(self, _request: web.Request) -> web.Response:
        return web.json_response(self.health)

    async def _save(self, request: web.Request) -> web.Response:
        self.keys.append(request.headers.get("Authorization", ""))
        await self.may_save.wait()
        self.saves += 1
        if self.busy_after_saving:
            self.is_busy()
        return web.json_response({"saved": 1})

    @asynccontextmanager
    async def served(self) -> AsyncIterator["PlayedExpert"]:
        application = web.Application()
        application.router.add_get("/health", self._health)
        application.router.add_post("/prefixes/save", self._save)
        runner = http_runner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        try:
            yield self
        finally:
            await runner.cleanup()
