"""`rouse expert`."""

import os
from typing import Annotated

import typer

from appliance.cli.command_line import CommandError
from appliance.cli.service import Supervised, begin, run
from appliance.node.serving import serve_expert
from appliance.notify import ServiceManager

app = typer.Typer()


@app.command()
def expert(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of an expert in the settings.")],
    *,
    supervised: Supervised = False,
) -> None:
    """Serve one expert of the settings over HTTP."""
    settings = begin(context)
    if name not in settings.experts:
        known = ", ".join(settings.experts) or "none"
        raise CommandError(f"there is no expert {name!r} in the settings (there are: {known})")
    manager = ServiceManager(os.environ)
    run(
        lambda stop: serve_expert(name, settings, stop=stop, supervised=supervised, manager=manager),
        manager,
        watched=False,
    )
