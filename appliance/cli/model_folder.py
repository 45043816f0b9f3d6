"""What every `rouse model` command works with."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from appliance.cli.command_line import command_line
from appliance.models.catalogue import Catalogue, load
from appliance.models.folder import ModelFolder
from appliance.settings.model import Settings

_CATALOGUE = "catalogue"

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]

VOUCHED = {
    "catalogue": "its checksum is the catalogue's",
    "user": "its checksum is the one that you gave",
    "source": "its checksum is what the source itself announced: the catalogue has none to compare it with",
    "nobody": "nobody vouches for its checksum",
}


@dataclass(frozen=True, slots=True)
class Here:
    """The settings, the catalogue, and the models folder."""

    settings: Settings
    catalogue: Catalogue
    folder: ModelFolder


def use_catalogue(context: typer.Context, catalogue: Path | None) -> None:
    """Leave the catalogue's file to the commands."""
    context.meta[_CATALOGUE] = catalogue


def here(context: typer.Context) -> Here:
    """Return what to work with. Raises SettingsError, CatalogueError."""
    settings = command_line(context).load().settings
    return Here(settings, load(context.meta[_CATALOGUE]), ModelFolder(settings.paths.models))
