"""Comments that keep a client waiting while nothing can be said yet.

A server-sent event stream may hold lines that begin with a colon, which readers ignore
(https://html.spec.whatwg.org/multipage/server-sent-events.html). They need the answer's head before them, and so its
status: that is why they are off unless the settings say otherwise.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any

from aiohttp import web

from appliance.gateway.answer import EVENT_STREAM

PAUSE_SECONDS = 10.0
COMMENT = b": please wait\n\n"


class KeptAlive:
    """The reply to one request, begun only if the client has to wait for long."""

    def __init__(self, request: web.Request, *, after: float | None, pause: float = PAUSE_SECONDS) -> None:
        """Take the request, and the seconds until the first comment and between two; `after=None` is never."""
        self._request = request
        self._after = after
        self._pause = pause
        self.begun: web.StreamResponse | None = None
        """The reply, once something was sent of it."""

    async def during[T](self, work: Coroutine[Any, Any, T]) -> T:
        """Return what the work returns, or raise what it raises; cancelled, the work is cancelled as well."""
        if self._after is None:
            return await work
        working = asyncio.create_task(work, name="work for a client that waits")
        try:
            done, _ = await asyncio.wait([working], timeout=self._after)
            while not done:
                await self._comment()
                done, _ = await asyncio.wait([working], timeout=self._pause)
        finally:
            if not working.done():
                working.cancel()
                await asyncio.wait([working])
        return working.result()

    async def _comment(self) -> None:
        if self.begun is None:
            headers = {"Content-Type": EVENT_STREAM, "Cache-Control": "no-cache"}
            self.begun = web.StreamResponse(status=200, headers=headers)
            await self.begun.prepare(self._request)
        await self.begun.write(COMMENT)
