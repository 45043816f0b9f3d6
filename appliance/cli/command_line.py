"""What every command gets from the command line's global options."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import typer

from appliance.settings import LoadedSettings, load


class CommandError(Exception):
    """The command can't do its work; the message is the line that the user sees."""


@dataclass(frozen=True, slots=True)
class CommandLine:
    """Where this run's settings come from. They are read on demand, so that help needs none."""

    config_dir: Path
    environ: Mapping[str, str]
    hostname: str

    def load(self) -> LoadedSettings:
        """Load the settings.

        Raises:
            InvalidSettingsError: something is wrong; the root command turns it into exit code 2.
        """
        return load(self.config_dir, self.environ, self.hostname)


def command_line(context: typer.Context) -> CommandLine:
    """Return what the root command left for its subcommands."""
    found = context.find_object(CommandLine)
    if found is None:
        raise RuntimeError("the root command has not run")
    return found
