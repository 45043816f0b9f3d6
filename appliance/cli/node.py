"""`rouse node`."""

import asyncio
import os

import typer

from appliance.cli.command_line import command_line
from appliance.cli.power_plan import power_plan
from appliance.cli.service import begin, run
from appliance.cli.updating import make_updates
from appliance.firstboot.report import read_status
from appliance.node import daemon
from appliance.node.identity import node_name
from appliance.node.unit import SETTINGS_FOLDER
from appliance.notify import ServiceManager, without_notification
from appliance.pairing.node_store import NodeStore
from appliance.pairing.waiting import wait_until_paired
from appliance.preflight.summary import read_summary
from appliance.security.broker import connect_to, is_node_of_another_hub
from appliance.security.paired import read_pairing
from appliance.settings.model import Settings

CONFIG_DIR_VARIABLE = "ROUSE_CONFIG_DIR"

app = typer.Typer()


@app.command()
def node(context: typer.Context) -> None:
    """Run the node daemon: announce this machine and keep its experts running.

    A node that is no hub and names no broker waits until a hub pairs with it.
    """
    settings = begin(context)
    manager = ServiceManager(os.environ)
    environment = {**without_notification(os.environ), CONFIG_DIR_VARIABLE: str(command_line(context).config_dir)}

    async def serve(stop: asyncio.Event) -> None:
        if await _belongs_to_a_house(settings, stop, manager):
            await daemon.run(
                settings,
                connection=connect_to(settings),
                environment=environment,
                stop=stop,
                ready=manager.ready,
                power=power_plan(settings),
                first_boot=read_status,
                for_units=SETTINGS_FOLDER if SETTINGS_FOLDER.is_dir() else None,
                preflight=read_summary,
                updates=lambda parts: make_updates(parts, settings),
            )

    run(serve, manager, watched=True)


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
