"""`rouse config`: look at the settings and check them."""

import sys
from typing import Annotated, Literal

import typer
from rich.console import Console

from appliance.cli.command_line import command_line
from appliance.settings import InvalidSettingsError
from appliance.settings.show import as_json, as_table, rows

app = typer.Typer(no_args_is_help=True, help="Look at the settings and check them.")

_PIPE_WIDTH = 200


@app.command()
def show(
    context: typer.Context,
    key: Annotated[
        str | None,
        typer.Argument(help="Show only this key, or the keys of this section, such as gateway.", metavar="KEY"),
    ] = None,
    *,
    as_json_: Annotated[bool, typer.Option("--json", help="Print a JSON array, for scripts.")] = False,
) -> None:
    """Show each setting, its value and where the value comes from. Secrets are masked."""
    shown = rows(command_line(context).load(), key)
    if as_json_:
        typer.echo(as_json(shown))
        return
    console = Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH)
    console.print(as_table(shown))


@app.command()
def check(context: typer.Context) -> None:
    """Check the settings; name everything that is wrong and exit with 1, or exit with 0."""
    try:
        loaded = command_line(context).load()
    except InvalidSettingsError as error:
        typer.echo(error, err=True)
        raise typer.Exit(1) from None
    changed = sum(source.layer != "default" for source in loaded.sources.values())
    typer.echo(f"The settings are valid: {changed} set, {len(loaded.sources) - changed} at their defaults.")


@app.command(hidden=True)
def runs(
    context: typer.Context,
    what: Annotated[Literal["hub", "broker"], typer.Argument(help="hub, or broker for a mosquitto of the hub's own.")],
) -> None:
    """Exit with 0 when this machine runs it and with 1 when it does not; units ask so (ExecCondition=)."""
    settings = command_line(context).load().settings
    hub = "hub" in settings.node.roles
    broker = hub and settings.broker.url is None and settings.broker.own == "mosquitto"
    if not (broker if what == "broker" else hub):
        typer.echo(f"This machine runs no {what} of its own.")
        raise typer.Exit(1)
