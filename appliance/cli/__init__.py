"""The `rouse` command."""

from appliance.cli.app import main

__all__ = ["main"]
