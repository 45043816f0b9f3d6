"""What the commands share."""

from dataclasses import dataclass
from pathlib import Path

import typer

from appliance.settings.interim import load
from appliance.settings.model import Settings


class CommandError(Exception):
    """The command can't do its work; the message is the one line that the user sees."""


@dataclass(frozen=True, slots=True)
class Invocation:
    """The root's options."""

    config_dir: Path


def current_settings(context: typer.Context) -> Settings:
    """Load the settings that the root's options name."""
    invocation: Invocation = context.obj
    return load(invocation.config_dir)
