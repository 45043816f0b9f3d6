"""What the commands of `rouse router` share: where things are, and how they end."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from appliance.cli.command_line import CommandError
from appliance.routing import dataset
from appliance.routing.errors import RoutingError
from appliance.routing.table import Table, table_of
from appliance.routing.versions import RouterVersions, router_folder
from appliance.settings.model import Settings

_PIPE_WIDTH = 160

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


def versions_of(settings: Settings) -> RouterVersions:
    """Return the versions in the state folder."""
    return RouterVersions(router_folder(settings.paths.state))


def data_file(settings: Settings) -> Path:
    """Return the data set that `generate` writes unless told otherwise."""
    return router_folder(settings.paths.state) / "data.jsonl"


def table_from(data: list[Path] | None, settings: Settings) -> Table:
    """Read data sets.

    Raises:
        RoutingError: one can't be read, or there is too little in them.
    """
    files = data or [data_file(settings)]
    return table_of(answer for file in files for answer in dataset.read(file))


def console() -> Console:
    """Return where tables are written; a pipe has room for them."""
    found = Console()
    return found if found.is_terminal else Console(width=_PIPE_WIDTH)


@contextmanager
def translated() -> Iterator[None]:
    """Have the command end with an error of the package as its one sentence."""
    try:
        yield
    except RoutingError as error:
        raise CommandError(str(error)) from error
