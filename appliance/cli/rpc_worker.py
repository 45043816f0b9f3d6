"""`rouse rpc-worker`."""

import logging
import os

import typer

from appliance.cli.service import Supervised, begin, run
from appliance.node.lending import serve_worker
from appliance.notify import ServiceManager

app = typer.Typer()


@app.command()
def rpc_worker(
    context: typer.Context,
    *,
    supervised: Supervised = False,
) -> None:
    """Lend this machine's processor and memory to an expert on another one."""
    settings = begin(context)
    manager = ServiceManager(os.environ)
    run(lambda stop: serve_worker(settings, stop=stop, supervised=supervised, manager=manager), manager, watched=True)
    logging.shutdown()
    os._exit(0)  # ggml's server is still running in its thread, and nothing may be torn down under it
