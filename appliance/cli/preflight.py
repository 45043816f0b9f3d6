"""`rouse preflight`: what machines are good for, before anything is deployed on them."""

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, get_args

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from appliance.cli import preflight_table as show_as
from appliance.cli.command_line import CommandError, command_line
from appliance.models import catalogue
from appliance.preflight.errors import TargetError
from appliance.preflight.gather import SECONDS
from appliance.preflight.inventory import Inventory
from appliance.preflight.run import Machine, Outcome, Unreached, check_all
from appliance.preflight.target import LOCAL
from appliance.preflight.written import document, write
from appliance.settings.section import Role

UNFIT, UNREACHED = 1, 3
_PIPE_WIDTH = 120

app = typer.Typer()


@app.command()
def preflight(
    context: typer.Context,
    hosts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[HOST]...",
            show_default=False,
            help="Names of the inventory (hosts/NAME.toml), user@host[:port], or @local for this machine, which is "
            "checked when none is given.",
        ),
    ] = None,
    *,
    role: Annotated[
        list[str] | None,
        typer.Option(metavar="ROLE", help="Judge by this role instead of those of the settings; may be repeated."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object, for scripts.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="One line for each machine.")] = False,
    output: Annotated[
        Path | None, typer.Option(dir_okay=False, metavar="FILE", help="Write the JSON object to this file as well.")
    ] = None,
    key: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Private SSH key, where settings name none.")
    ] = None,
    known_hosts: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="File of trusted SSH host keys.")
    ] = None,
    ssh_config: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Another configuration of the SSH client.")
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=1, max=3600, metavar="SECONDS", help="How long each machine may take.")
    ] = SECONDS,
) -> None:
    """Check machines without changing anything on them, and say what each is good for.

    Exit code: 0 all good, or warnings only; 1 a machine is unfit for its role; 2 wrong usage or settings; 3 a machine
    was not reached.
    """
    command = command_line(context)
    inventory = Inventory(
        config_dir=command.config_dir,
        environ=command.environ,
        hostname=command.hostname,
        catalogue=catalogue.load(),
        roles=_roles(role),
        key=key,
        known_hosts=known_hosts,
        ssh_config=ssh_config,
    )
    try:
        machines = [inventory.machine(host) for host in dict.fromkeys(hosts or [LOCAL])]
    except TargetError as error:
        raise typer.BadParameter(str(error), param_hint="HOST") from None
    outcomes = _checked(machines, timeout, silent=as_json or quiet)
    if output is not None:
        try:
            write(output, outcomes)
        except OSError as error:
            raise CommandError(f"{output}: can't be written: {error.strerror}") from error
    if as_json:
        typer.echo(json.dumps(document(outcomes), indent=2))
    else:
        console = Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, markup=False, highlight=False)
        for number, outcome in enumerate(outcomes):
            show_as.print_outcome(console, outcome, brief=quiet, first=number == 0)
    raise typer.Exit(exit_code(outcomes))


def exit_code(outcomes: Sequence[Outcome]) -> int:
    """Return what the command ends with."""
    if any(isinstance(outcome, Unreached) for outcome in outcomes):
        return UNREACHED
    return UNFIT if any(not isinstance(outcome, Unreached) and outcome.unfit for outcome in outcomes) else 0


def _roles(given: list[str] | None) -> tuple[Role, ...] | None:
    known: tuple[Role, ...] = get_args(Role)
    for name in given or ():
        if name not in known:
            raise typer.BadParameter(f"{name!r}: no such role; there are {', '.join(known)}", param_hint="--role")
    return tuple(role for role in known if role in given) if given else None


def _checked(machines: Sequence[Machine], seconds: float, *, silent: bool) -> tuple[Outcome, ...]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=silent or not sys.stderr.isatty()) as progress:
        waiting = {machine.target.name for machine in machines}
        task = progress.add_task("", total=len(machines))

        def show() -> None:
            names = ", ".join(sorted(waiting)[:3])
            more = f" and {len(waiting) - 3} more" if len(waiting) > 3 else ""
            progress.update(task, completed=len(machines) - len(waiting), description=f"checking {names}{more}"[:60])

        def tell(outcome: Outcome) -> None:
            waiting.discard(outcome.host)
            show()

        show()
        return asyncio.run(check_all(machines, seconds=seconds, on_outcome=tell))
