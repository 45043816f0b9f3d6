"""Asks one endpoint, and waits until its answer has begun.

Connections to the house's own experts are kept and used again, which saves a handshake for each request. One that
its expert has closed meanwhile fails at once; the request is then sent again on a new connection. That is safe,
because an answer changes nothing: at worst an expert computes it twice. An external server gets a new connection
for each request: some of them, llama-server among them, close idle ones without a word, and with some an answer costs
money. docs/decisions/connection-reuse.md has the measurements.
"""

import asyncio
import errno
import ssl
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import aiohttp

from appliance.gateway.answer import EVENT_STREAM, JSON, Usage, check_whole, error_message, first_event
from appliance.gateway.errors import AttemptError, BadAnswerError, GoneError, OverloadedError, SilentError
from appliance.gateway.externals import Access, AccessBook
from appliance.gateway.request import Request
from appliance.routing.candidates import Endpoint
from appliance.settings.model import GatewaySettings

STALE_SECONDS = 1.0
"""A kept connection that the expert has closed fails within a round trip; what fails later was a real request."""
CLIENTS_OWN_MISTAKES = frozenset({400, 413, 415, 422})
"""Statuses that any other expert would answer as well. Others from 400 on are between gateway and expert."""
TOO_BUSY = frozenset({429, 503})
MAX_ERROR_BYTES = 64 * 1024
PROBE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Begun:
    """An answer that has begun."""

    response: aiohttp.ClientResponse
    status: int
    content_type: str
    first: bytes
    """What has come: the first event of a stream at least, all of any other answer."""
    start: int | None
    """Where in it the JSON object begins that a `rouse` object can be put into; None for an error."""
    usage: Usage | None
    """Of an answer in one piece."""


class Upstream:
    """The way to all endpoints: an async context manager that owns the connections."""

    def __init__(self, *, settings: GatewaySettings, access: AccessBook) -> None:
        self._settings = settings
        self._access = access
        self._stack = AsyncExitStack()
        self._kept: aiohttp.ClientSession
        self._new: aiohttp.ClientSession
        self._stream_timeout = self._timeout(settings.first_token_timeout)
        self._whole_timeout = self._timeout(settings.answer_timeout)
        self._probe_timeout = aiohttp.ClientTimeout(total=PROBE_SECONDS, connect=settings.connect_timeout)

    def _timeout(self, gap: float) -> aiohttp.ClientTimeout:
        return aiohttp.ClientTimeout(total=None, connect=self._settings.connect_timeout, sock_read=gap)

    async def __aenter__(self) -> Self:
        self._kept = await self._session(aiohttp.TCPConnector(limit=0))
        self._new = await self._session(aiohttp.TCPConnector(limit=0, force_close=True))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _session(self, connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
        return await self._stack.enter_async_context(
            aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=("Accept-Encoding", "User-Agent"),
            )
        )

    async def ask(self, endpoint: Endpoint, request: Request) -> Begun:
        """Send a request; return when the answer has begun, or is whole if it is not streamed.

        Raises:
            AttemptError: this endpoint does not answer it.
        """
        access = self._access.of(endpoint)
        limit = self._settings.first_token_timeout if request.streamed else self._settings.answer_timeout
        try:
            async with asyncio.timeout(limit):
                response = await self._send(endpoint, request, access)
                try:
                    return await self._begin(response, streamed=request.streamed)
                except BaseException:
                    response.close()
                    raise
        except AttemptError as error:
            raise type(error)(access.without_key(str(error))) from error
        except TimeoutError:
            raise SilentError(f"no answer within {limit:g} s") from None
        except (aiohttp.ClientError, OSError, ssl.CertificateError, ValueError) as error:
            refused = isinstance(error, aiohttp.ClientConnectorError) and error.errno == errno.ECONNREFUSED
            raise (GoneError if refused else SilentError)(_short(error)) from error

    async def probe(self, endpoint: Endpoint) -> bool:
        """Return whether an endpoint's health check answers well."""
        try:
            access = self._access.of(endpoint)
            async with self._new.get(
                access.probe_url,
                headers=access.headers if endpoint.external else {},
                timeout=self._probe_timeout,
                allow_redirects=False,
                ssl=access.tls,
            ) as response:
                return response.status == 200
        except (AttemptError, aiohttp.ClientError, OSError, ValueError):  # a timeout is an OSError too
            return False

    async def _send(self, endpoint: Endpoint, request: Request, access: Access) -> aiohttp.ClientResponse:
        body = request.body(access.model)
        if endpoint.external:
            return await self._post(self._new, endpoint, request, access, body)
        clock = asyncio.get_running_loop().time
        begun = clock()
        try:
            return await self._post(self._kept, endpoint, request, access, body)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
            if isinstance(error, aiohttp.ClientConnectorError) or clock() - begun > STALE_SECONDS:
                raise
            return await self._post(self._new, endpoint, request, access, body)

    async def _post(
        self, session: aiohttp.ClientSession, endpoint: Endpoint, request: Request, access: Access, body: bytes
    ) -> aiohttp.ClientResponse:
        return await session.post(
            endpoint.url + request.path,
            data=body,
            headers={**access.headers, "Content-Type": JSON},
            timeout=self._stream_timeout if request.streamed else self._whole_timeout,
            allow_redirects=False,
            ssl=access.tls,
        )

    async def _begin(self, response: aiohttp.ClientResponse, *, streamed: bool) -> Begun:
        status, kind = response.status, response.content_type
        if status != 200:
            return await self._refused(response)
        if kind != (EVENT_STREAM if streamed else JSON):
            raise BadAnswerError(f"it answered with {ascii(kind)[:100]}")
        if not streamed:
            body = await _read(response, self._settings.max_body_bytes)
            usage = check_whole(body)
            return Begun(response, status, kind, body, 0, usage)
        begun = b""
        while (start := first_event(begun)) is None:
            chunk = await response.content.readany()
            if not chunk:
                raise SilentError("its stream ended before its first token")
            begun = begun + chunk if begun else chunk
        return Begun(response, status, kind, begun, start, None)

    async def _refused(self, response: aiohttp.ClientResponse) -> Begun:
        status = response.status
        body = await _read(response, MAX_ERROR_BYTES)
        if status in CLIENTS_OWN_MISTAKES and response.content_type == JSON:
            return Begun(response, status, JSON, body, None, None)
        said = error_message(body)
        text = f"HTTP {status}: {said}" if said else f"HTTP {status}"
        refusal: type[AttemptError] = OverloadedError if status in TOO_BUSY else BadAnswerError
        raise refusal(text)


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    parts = []
    length = 0
    while chunk := await response.content.readany():
        length += len(chunk)
        if length > limit:
            raise BadAnswerError(f"its answer is longer than {limit} bytes")
        parts.append(chunk)
    return b"".join(parts)


def _short(error: Exception) -> str:
    return (str(error) or type(error).__name__)[:200]
