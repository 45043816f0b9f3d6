"""`rouse hub`."""

import os

import typer

from appliance import hub as hub_root
from appliance.cli.service import begin, run
from appliance.notify import ServiceManager

app = typer.Typer()


@app.command()
def hub(context: typer.Context) -> None:
    """Run the hub: broker (unless broker.url names one), gateway and agents."""
    settings = begin(context)
    manager = ServiceManager(os.environ)
    run(lambda stop: hub_root.run(settings, stop=stop, ready=lambda _: manager.ready()), manager, watched=True)
