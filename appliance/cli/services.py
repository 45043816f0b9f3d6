"""The long-running commands: `rouse hub`, `rouse node`, `rouse expert` and `rouse rpc-worker`."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

import typer

from appliance import hub as hub_root
from appliance.bus.errors import BusConfigurationError
from appliance.cli.command_line import CommandError, command_line
from appliance.errors import StartError
from appliance.experts.errors import EngineBrokenError, ModelLoadError
from appliance.firstboot.report import read_status
from appliance.node import daemon
from appliance.node.identity import node_name
from appliance.node.lending import serve_worker
from appliance.node.serving import serve_expert
from appliance.notify import ServiceManager, without_notification
from appliance.pairing.errors import PairingError
from appliance.pairing.node_store import NodeStore
from appliance.pairing.waiting import wait_until_paired
from appliance.security.broker import connect_to, is_node_of_another_hub
from appliance.security.paired import read_pairing
from appliance.security.secrets import SecretError
from appliance.settings.model import Settings

_log = logging.getLogger(__name__)

CONFIG_DIR_VARIABLE = "ROUSE_CONFIG_DIR"

type Service = Callable[[asyncio.Event], Coroutine[Any, Any, None]]


def add_to(app: typer.Typer) -> None:
    """Add the commands to the root."""
    app.command()(hub)
    app.command()(node)
    app.command()(expert)
    app.command()(rpc_worker)


def hub(context: typer.Context) -> None:
    """Run the hub: broker (unless broker.url names one), gateway and agents."""
    settings = _begin(context)
    manager = ServiceManager(os.environ)
    _run(lambda stop: hub_root.run(settings, stop=stop, ready=lambda _: manager.ready()), manager, watched=True)


def node(context: typer.Context) -> None:
    """Run the node daemon: announce this machine and keep its experts running.

    A node that is no hub and names no broker waits until a hub pairs with it.
    """
    settings = _begin(context)
    manager = ServiceManager(os.environ)
    environment = {**without_notification(os.environ), CONFIG_DIR_VARIABLE: str(command_line(context).config_dir)}

    async def serve(stop: asyncio.Event) -> None:
        if await _belongs_to_a_house(settings, stop, manager):
            await daemon.run(
                settings,
                connection=connect_to(settings),
                environment=environment,
                stop=stop,
                first_boot=read_status,
            )

    _run(serve, manager, watched=True)


async def _belongs_to_a_house(settings: Settings, stop: asyncio.Event, manager: ServiceManager) -> bool:
    """Wait behind the pairing door, if this node's broker is known by pairing only; False if stopped meanwhile."""
    if not is_node_of_another_hub(settings):
        return True
    await asyncio.to_thread(NodeStore(settings.paths.state).recover)
    if read_pairing(settings.paths.state) is not None:
        return True
    return await wait_until_paired(
        settings,
        name=node_name(settings.node),
        first_boot=read_status,
        stop=stop,
        ready=lambda _: manager.ready("waiting to be paired"),
    )


def expert(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of an expert in the settings.")],
    *,
    supervised: Annotated[
        bool,
        typer.Option("--supervised", help="End when standard input closes, as the node daemon wants it."),
    ] = False,
) -> None:
    """Serve one expert of the settings over HTTP."""
    settings = _begin(context)
    if name not in settings.experts:
        known = ", ".join(settings.experts) or "none"
        raise CommandError(f"there is no expert {name!r} in the settings (there are: {known})")
    manager = ServiceManager(os.environ)
    _run(
        lambda stop: serve_expert(name, settings, stop=stop, supervised=supervised, manager=manager),
        manager,
        watched=False,
    )


def rpc_worker(
    context: typer.Context,
    *,
    supervised: Annotated[
        bool,
        typer.Option("--supervised", help="End when standard input closes, as the node daemon wants it."),
    ] = False,
) -> None:
    """Lend this machine's processor and memory to an expert on another one."""
    settings = _begin(context)
    manager = ServiceManager(os.environ)
    _run(lambda stop: serve_worker(settings, stop=stop, supervised=supervised), manager, watched=True)
    logging.shutdown()
    os._exit(0)  # ggml's server is still running in its thread, and nothing may be torn down under it


def _begin(context: typer.Context) -> Settings:
    settings = command_line(context).load().settings
    logging.basicConfig(
        level=settings.log.level.upper(),
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    for noisy in ("transitions", "amqtt"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    return settings


def _run(service: Service, manager: ServiceManager, *, watched: bool) -> None:
    """Run a service until SIGTERM or SIGINT; a second signal ends it at once.

    With `watched`, a turning event loop is what the service manager's watchdog sees; without, the service says itself
    that it is alive.
    """

    async def run() -> None:
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
        asyncio.run(run())
    except (StartError, BusConfigurationError, SecretError, PairingError, ModelLoadError, EngineBrokenError) as error:
        raise CommandError(str(error)) from error
