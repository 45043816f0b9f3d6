"""What this project's HTTP servers add to aiohttp's: a client's mistake is its own, not an error of the server."""

import logging

from aiohttp import web
from aiohttp.http import HttpProcessingError
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector


class _WithoutClientsMistakes(logging.Filter):
    """Drops the tracebacks that aiohttp logs when what a stranger sends is no HTTP, or when he leaves."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, HttpProcessingError | web.RequestPayloadError | ConnectionError)


_server_log = logging.getLogger(f"{__name__}.aiohttp")
_server_log.addFilter(_WithoutClientsMistakes())


def http_runner(application: web.Application) -> web.AppRunner:
    """Return what runs an application; a handler is cancelled when its client goes away."""
    return web.AppRunner(
        application, access_log=None, handler_cancellation=True, shutdown_timeout=5.0, logger=_server_log
    )


def process_registry() -> CollectorRegistry:
    """Return a registry of metrics that has those of the process itself: time, memory, files, collections."""
    registry = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    return registry


async def read_body(request: web.Request) -> bytes:
    """Return the whole body.

    Raises:
        HTTPBadRequest: it can't be read, because it is not what its headers say.
        HTTPRequestEntityTooLarge: it is larger than the application allows.
    """
    try:
        return await request.read()
    except (HttpProcessingError, web.RequestPayloadError) as error:
        raise web.HTTPBadRequest(reason="The body can't be read: it is not what its headers say.") from error
