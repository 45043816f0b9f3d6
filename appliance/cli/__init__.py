"""The `rouse` command."""

from appliance.cli.app import app


def main() -> None:
    """Run the command that the command line names."""
    app(prog_name="rouse")
