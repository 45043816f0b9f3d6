"""The root of the command line: global options, and what an error looks like."""

import os
import socket
from pathlib import Path
from typing import Annotated, Any

import typer

from appliance import __version__
from appliance.cli.command_line import CommandError, CommandLine
from appliance.cli.lazy import LazyGroup
from appliance.models.errors import ModelError
from appliance.settings import SettingsError

DEFAULT_CONFIG_DIR = Path("/etc/rouse")


class _Root(LazyGroup):
    """Says errors on standard error: those in the settings exit with 2, as wrong usage does, others with 1."""

    prefix = "appliance.cli."
    groups = frozenset(
        {
            *("backup", "bench", "certificate", "config", "first-boot", "image"),
            *("model", "pair", "power", "router", "update"),
        }
    )
    members = frozenset({"console", "deploy", "expert", "hub", "node", "preflight", "rpc-worker", "tune"})

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except SettingsError as error:
            typer.echo(error, err=True)
            raise typer.Exit(2) from None
        except (CommandError, ModelError) as error:
            typer.echo(f"rouse: {error}", err=True)
            raise typer.Exit(1) from None


# typer's own tracebacks can show local variables, and with them secrets.
app = typer.Typer(
    cls=_Root,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    pretty_exceptions_show_locals=False,
)


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - typer passes the option's value so
    if wanted:
        typer.echo(f"rouse {__version__}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    *,
    config_dir: Annotated[
        Path | None,
        typer.Option(
            envvar="ROUSE_CONFIG_DIR",
            exists=True,
            file_okay=False,
            show_default=str(DEFAULT_CONFIG_DIR),
            help="Folder with rouse.toml, groups/ and hosts/.",
        ),
    ] = None,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Local AI experts for Home Assistant that sleep until they are needed."""
    context.obj = CommandLine(
        config_dir=config_dir or DEFAULT_CONFIG_DIR, environ=os.environ, hostname=socket.gethostname()
    )
