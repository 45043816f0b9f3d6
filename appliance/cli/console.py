"""`rouse console`: the status screen."""

import asyncio
import signal
from typing import Annotated

import typer

from appliance.cli.command_line import command_line
from appliance.console.run import run
from appliance.console.sources import Sources
from appliance.console.terminal import Terminal
from appliance.firstboot.report import STATUS_FILE
from appliance.node.identity import node_name
from appliance.preflight.summary import read_summary
from appliance.settings import InvalidSettingsError, Settings

app = typer.Typer()


@app.command()
def console(
    context: typer.Context,
    *,
    once: Annotated[bool, typer.Option("--once", help="Show it one time and end.")] = False,
    plain: Annotated[
        bool, typer.Option("--plain", help="Write only what changes, for a line that can't move its cursor.")
    ] = False,
) -> None:
    """Show how this machine is doing, for its own screen or a serial line; r shows another pairing code."""
    errors: tuple[str, ...] = ()
    try:
        settings = command_line(context).load().settings
    except InvalidSettingsError as error:
        settings, errors = Settings(), tuple(str(problem) for problem in error.problems)
    sources = Sources(
        settings=settings,
        name=node_name(settings.node),
        first_boot=STATUS_FILE,
        preflight=read_summary,
        errors=errors,
    )

    async def show() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, stop.set)
        await run(sources, Terminal.found(plain=plain), stop=stop, once=once)

    asyncio.run(show())
