"""The pairing door over HTTP, and the socket on which this machine's own screen asks for the code."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from aiohttp import web

from appliance.errors import StartError
from appliance.http_server import http_runner, read_body
from appliance.pairing.door import Door
from appliance.pairing.wire import (
    LARGEST_BYTES,
    FinishRequest,
    Part,
    ProveRequest,
    Refusal,
    StartRequest,
    State,
    parsed,
)

_log = logging.getLogger(__name__)

BODY_SECONDS = 10.0
SOCKET_MODE = 0o660
ALL_ADDRESSES = "0.0.0.0"  # noqa: S104 - the door is for the network; it is shut once the node is paired
_STATUS = {"wrong_code": 403, "locked": 429, "claimed": 409, "paired": 409, "unknown_session": 404, "storage": 507}

type FirstBoot = Callable[[], Mapping[str, Any]]


class DoorServer:
    """The handlers."""

    def __init__(self, door: Door, *, state: Callable[[], State], first_boot: FirstBoot) -> None:
        """Take the door, what it says of itself, and what is told of the first-boot file."""
        self._door = door
        self._state = state
        self._first_boot = first_boot

    def application(self) -> web.Application:
        """Build what the network reaches."""
        app = web.Application(client_max_size=LARGEST_BYTES)
        app.router.add_get("/pairing", self._tell)
        app.router.add_get("/first-boot", self._tell_first_boot)
        app.router.add_post("/pairing/start", self._start)
        app.router.add_post("/pairing/prove", self._prove)
        app.router.add_post("/pairing/finish", self._finish)
        return app

    def own_application(self) -> web.Application:
        """Build what this machine's own screen reaches."""
        app = web.Application()
        app.router.add_get("/code", self._code)
        app.router.add_post("/code", self._renew)
        return app

    async def _tell(self, _request: web.Request) -> web.Response:
        return _answer(self._state())

    async def _tell_first_boot(self, _request: web.Request) -> web.Response:
        return web.json_response(self._first_boot())

    async def _start(self, request: web.Request) -> web.Response:
        return _answer(self._door.start(await _part(request, StartRequest), _sender(request)))

    async def _prove(self, request: web.Request) -> web.Response:
        return _answer(self._door.prove(await _part(request, ProveRequest), _sender(request)))

    async def _finish(self, request: web.Request) -> web.Response:
        return _answer(self._door.finish(await _part(request, FinishRequest), _sender(request)))

    async def _code(self, _request: web.Request) -> web.Response:
        door = self._door
        told: dict[str, object] = {
            "state": door.state,
            "key": door.identity.fingerprint,
            "code": None,
            "expires_in": None,
            "locked_for": None,
        }
        if door.state == "open":
            told |= {"code": door.code, "expires_in": round(door.code_expires_in)}
        if door.state == "locked":
            told |= {"locked_for": round(door.locked_for)}
        return web.json_response(told)

    async def _renew(self, request: web.Request) -> web.Response:
        self._door.renew_code()
        return await self._code(request)


@asynccontextmanager
async def open_door(server: DoorServer, *, port: int, socket: Path) -> AsyncIterator[int]:
    """Serve the door on all addresses and the socket, and give the door's port.

    Raises:
        StartError: the port is taken.
    """
    async with AsyncExitStack() as stack:
        runner = http_runner(server.application())
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        try:
            await web.TCPSite(runner, ALL_ADDRESSES, port).start()
        except OSError as error:
            raise StartError(
                f"the pairing door can't listen on port {port}: {error.strerror}. Set pairing.port."
            ) from error
        await stack.enter_async_context(_own_socket(server.own_application(), socket))
        yield int(runner.addresses[0][1])


@asynccontextmanager
async def _own_socket(app: web.Application, socket: Path) -> AsyncIterator[None]:
    """Serve on a Unix socket; without one the code is in nobody's sight, but in the log."""
    runner = http_runner(app)
    await runner.setup()
    try:
        try:
            socket.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            before = os.umask(0o777 & ~SOCKET_MODE)
            try:
                await web.UnixSite(runner, str(socket)).start()
            finally:
                os.umask(before)
        except OSError as error:
            _log.error("the console can't ask for the code: %s: %s. Set pairing.socket.", socket, error.strerror)
        yield
    finally:
        await runner.cleanup()
        with suppress(OSError):
            os.unlink(socket)  # noqa: PTH108, ASYNC - a name in memory


async def _part[P: Part](request: web.Request, kind: type[P]) -> P:
    # A web page of anybody's can post a form to the door from within the house, but no JSON without being asked.
    if request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType
    try:
        async with asyncio.timeout(BODY_SECONDS):
            body = await read_body(request)
    except TimeoutError:
        raise web.HTTPRequestTimeout from None
    part = parsed(kind, body)
    if part is None:
        _refuse_malformed(kind)
    return part


def _refuse_malformed(kind: type[Part]) -> NoReturn:
    refusal = Refusal(reason="malformed", message=f"The body is no {kind.__name__} of version 1.")
    raise web.HTTPBadRequest(text=refusal.model_dump_json(), content_type="application/json")


def _answer(part: Part) -> web.Response:
    status = _STATUS.get(part.reason, 400) if isinstance(part, Refusal) else 200
    headers = {}
    if isinstance(part, Refusal) and part.retry_after is not None:
        headers["Retry-After"] = str(int(part.retry_after) + 1)
    return web.Response(text=part.model_dump_json(), status=status, content_type="application/json", headers=headers)


def _sender(request: web.Request) -> str:
    return request.remote or "somebody"
