"""Runs until told to stop, or until something that should never end does."""

import asyncio
import logging
from collections.abc import Iterable

from appliance.bus.errors import BusConfigurationError

_log = logging.getLogger(__name__)


async def until(stop: asyncio.Event, tasks: Iterable[asyncio.Task[None]]) -> None:
    """Wait for `stop`, then cancel the tasks.

    Raises:
        BusConfigurationError: the broker refuses this process.
        Exception: of a task that ended before; it is a bug, and ends the process so that it is started anew.
    """
    stopping = asyncio.create_task(stop.wait(), name="stop")
    working = tuple(tasks)
    try:
        done, _ = await asyncio.wait([stopping, *working], return_when=asyncio.FIRST_COMPLETED)
        for task in done - {stopping}:
            if not isinstance(task.exception(), BusConfigurationError):
                _log.critical("task %s ended", task.get_name(), exc_info=task.exception())
            task.result()
    finally:
        for task in (stopping, *working):
            task.cancel()
        await asyncio.wait([stopping, *working])
