"""What the long-running commands have in common: settings, log, signals, and the service manager."""

import asyncio
import logging
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

import typer

from appliance.bus.errors import BusConfigurationError
from appliance.cli.command_line import CommandError, command_line
from appliance.errors import StartError
from appliance.experts.errors import EngineBrokenError, ModelLoadError
from appliance.notify import ServiceManager
from appliance.pairing.errors import PairingError
from appliance.security.ca.errors import CaError
from appliance.security.secrets import SecretError
from appliance.settings.model import Settings

_ERRORS = (StartError, BusConfigurationError, SecretError, CaError, PairingError, ModelLoadError, EngineBrokenError)

Supervised = Annotated[
    bool, typer.Option("--supervised", help="End when standard input closes, as the node daemon wants it.")
]

type Service = Callable[[asyncio.Event], Coroutine[Any, Any, None]]


def begin(context: typer.Context) -> Settings:
    """Return the settings, with logging set up."""
    settings = command_line(context).load().settings
    logging.basicConfig(
        level=settings.log.level.upper(),
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    for noisy in ("transitions", "amqtt"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    return settings


def run(service: Service, manager: ServiceManager, *, watched: bool) -> None:
    """Run a service until SIGTERM or SIGINT; a second signal ends it at once.

    With `watched`, a turning event loop is what the service manager's watchdog sees; without, the service says itself
    that it is alive.
    """

    async def serve() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()

        def stop_or_quit() -> None:
            if stop.is_set():
                sys.exit(130)
            stop.set()
            manager.stopping()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop_or_quit)
        watchdog = asyncio.create_task(manager.keep_alive(), name="watchdog") if watched else None
        try:
            await service(stop)
        finally:
            if watchdog is not None:
                watchdog.cancel()

    try:
        asyncio.run(serve())
    except _ERRORS as error:
        raise CommandError(str(error)) from error
