"""The root of the command line."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from appliance import __version__
from appliance.cli import services
from appliance.cli.context import CommandError, Invocation

app = typer.Typer(
    name="rouse", no_args_is_help=True, pretty_exceptions_enable=False, help="Local AI for Home Assistant."
)
services.add_commands(app)


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it so
    if wanted:
        typer.echo(f"rouse {__version__}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    config_dir: Annotated[
        Path, typer.Option(envvar="ROUSE_CONFIG_DIR", help="Folder of the configuration files.")
    ] = Path("/etc/rouse"),
    version: Annotated[  # noqa: ARG001 - its callback does the work
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Local AI for Home Assistant that sleeps until it is needed."""
    context.obj = Invocation(config_dir=config_dir)


def main() -> None:
    """Run the command; an error is one line on standard error and exit code 1."""
    try:
        app()
    except CommandError as error:
        typer.echo(f"rouse: {error}", err=True)
        sys.exit(1)
