"""`rouse first-boot`: check the file for the FAT partition, and apply it."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from appliance.cli.command_line import CommandError
from appliance.firstboot.apply import Machine, Outcome, apply
from appliance.firstboot.candidate import read_candidate
from appliance.firstboot.errors import ApplyError, RefusedFileError
from appliance.firstboot.forget import forget_secrets
from appliance.firstboot.plan import ADMINISTRATOR
from appliance.firstboot.report import advice, problems_as_json, where
from appliance.settings.errors import Problem
from appliance.settings.model import Settings

app = typer.Typer(no_args_is_help=True, help="Check the file for the FAT partition, and apply it.")

CONFIG_PARTITION = Path("/run/rouse/config")
_PIPE_WIDTH = 200

Folder = Annotated[
    Path, typer.Option("--from", exists=True, file_okay=False, help="Where the FAT partition is mounted.")
]
Root = Annotated[Path, typer.Option("--root", exists=True, file_okay=False, help="System to change.")]


@app.command()
def check(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A rouse.toml.")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object, for scripts.")] = False,
) -> None:
    """Check a file before it goes on the stick; exit with 1 when it can't be used."""
    try:
        candidate = read_candidate(file, config_dir=Path("/nonexistent"), hostname="")
    except RefusedFileError as error:
        if as_json:
            typer.echo(json.dumps({"good": False, "problems": problems_as_json(error.problems)}, indent=2))
        else:
            _console().print(_problem_table(error.problems))
        raise typer.Exit(1) from None
    meaning = _meaning(candidate.settings)
    if as_json:
        typer.echo(json.dumps({"good": True, "settings": dict(meaning)}, indent=2))
        return
    table = Table("Setting", "Value", title=f"{file} is good", title_justify="left", box=None, pad_edge=False)
    for name, value in meaning:
        table.add_row(name, value)
    _console().print(table)


@app.command("apply")
def apply_command(
    folder: Folder = CONFIG_PARTITION,
    root: Root = Path("/"),
    administrator: Annotated[str, typer.Option("--admin", help="User that the SSH keys are for.")] = ADMINISTRATOR,
) -> None:
    """Bring the machine in line with the file; a file that can't be used changes nothing and is no failure."""
    try:
        outcome = apply(folder, Machine(root, administrator))
    except ApplyError as error:
        raise CommandError(str(error)) from error
    _say(outcome, folder)


@app.command("forget-secrets")
def forget(folder: Folder = CONFIG_PARTITION, root: Root = Path("/")) -> None:
    """Move the secrets from the file to the machine, so that who holds the stick can't read them."""
    try:
        keys = forget_secrets(folder, Machine(root))
    except RefusedFileError as error:
        raise CommandError(f"nothing was moved, because the file is not good:\n{error}") from error
    except ApplyError as error:
        raise CommandError(str(error)) from error
    typer.echo(f"Moved to this machine: {', '.join(keys)}." if keys else "The file holds no secrets.")


def _say(outcome: Outcome, folder: Path) -> None:
    status = outcome.status
    for problem in status.problems:
        typer.echo(f"{where(problem)}: {problem.text}", err=True)
    if status.state == "bad":
        after = "the last good file stays" if status.kept else "nothing is set"
        typer.echo(f"The file in {folder} can't be used; {after}.", err=True)
    elif status.state == "none":
        typer.echo(f"There is no rouse.toml in {folder}." + (" The last good file stays." if status.kept else ""))
    typer.echo(f"Changed: {', '.join(outcome.changed)}." if outcome.changed else "Nothing to change.")


def _problem_table(problems: tuple[Problem, ...]) -> Table:
    table = Table("Where", "What is wrong", "How to write it", show_lines=True)
    for problem in problems:
        table.add_row(where(problem), problem.text, advice(problem) or "")
    return table


def _meaning(settings: Settings) -> list[tuple[str, str]]:
    """Return what the file asks for, without secrets."""
    wifi, static, system = settings.network.wifi, settings.network.static, settings.system
    wireless = f"{wifi.ssid} ({'passphrase set' if wifi.psk else 'open'})" if wifi.ssid else "no"
    if settings.broker.url is not None:
        broker = settings.broker.url
    else:
        broker = "its own" if "hub" in settings.node.roles else "by pairing"
    keys = [f"{key.split(' ')[0]} {' '.join(key.split(' ')[2:])}".strip() for key in system.ssh_keys]
    return [
        ("name", settings.node.name or "made of the host name"),
        ("roles", ", ".join(settings.node.roles)),
        ("host name", system.hostname or settings.node.name or "made by the machine"),
        ("time zone", system.time_zone or "UTC"),
        ("Wi-Fi", wireless),
        ("address", static.address or "from the router (DHCP)"),
        ("SSH keys", ", ".join(keys) or "none: nobody may log in"),
        ("broker", broker),
        ("experts", ", ".join(f"{name} ({expert.model})" for name, expert in settings.experts.items()) or "none"),
    ]


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, markup=False, highlight=False)
