"""`rouse deploy`: bring machines in line with their settings."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from appliance.cli.command_line import CommandError, CommandLine, command_line
from appliance.cli.deploy_preflight import look_at
from appliance.cli.deploy_result import DeployResult
from appliance.cli.deploy_view import DeployView

if TYPE_CHECKING:
    from pyinfra_deploys.events import Request
    from pyinfra_deploys.inventory import Machine

PASSWORD_VARIABLE = "ROUSE_SUDO_PASSWORD"  # noqa: S105 - a variable's name
_STDERR_LINES = 15

app = typer.Typer()


@app.command()
def deploy(
    context: typer.Context,
    hosts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[HOST]...",
            show_default=False,
            help="Names (hosts/NAME.toml of the configuration folder), @local for this machine, or @chroot/FOLDER for "
            "a root file system. All that have a file when none is given.",
        ),
    ] = None,
    *,
    limit: Annotated[
        list[str] | None,
        typer.Option(metavar="WHAT", help="Only machines of this role or name (with * and ?); may be repeated."),
    ] = None,
    part: Annotated[
        list[str] | None, typer.Option(metavar="PART", help="Only this part, such as firewall; may be repeated.")
    ] = None,
    dry: Annotated[bool, typer.Option("--dry", help="Change nothing; show what would change.")] = False,
    called: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="Whose settings @local or @chroot/FOLDER takes.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object, for scripts.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show every operation and every difference.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing.")] = False,
    preflight: Annotated[
        bool, typer.Option("--preflight/--skip-preflight", help="Look first whether each machine can do its roles.")
    ] = True,
) -> None:
    """Bring machines in line with their settings; what is so already stays untouched.

    Exit code: 0 all went well, 1 something failed, 2 wrong usage or settings.
    """
    command = command_line(context)
    with _errors():
        machines = _limited(_machines(command, hosts or [], called), limit or [])
        if preflight:
            look_at({machine.target: machine.settings for machine in machines if not machine.is_chroot})
        passwords = _sudo_passwords(machines, command.environ, ask=not yes and not as_json and sys.stdin.isatty())
        if not dry and not yes:
            _confirm(machines)
        request = _request(command, machines, called=called, parts=part or [], dry=dry, passwords=passwords)
    view = DeployView(verbose=verbose, dry=dry, quiet=as_json)
    result = run(request, command.environ, view)
    if as_json:
        typer.echo(json.dumps(result.as_json(), indent=1))
    else:
        view.print_summary(result)
        for failure in result.failures():
            typer.echo(f"rouse: {failure}", err=True)
    raise typer.Exit(0 if result.succeeded else 1)


def run(request: "Request", environ: Mapping[str, str], view: DeployView) -> DeployResult:
    """Run pyinfra in a process of its own and show what it tells.

    Raises:
        CommandError: the process ends without having said how it went.
        typer.BadParameter: it says that the request is wrong.
    """
    from pyinfra_deploys import __file__ as package  # noqa: PLC0415 - the sources' own
    from pyinfra_deploys.events import EVENT  # noqa: PLC0415 - the sources' own

    top = str(Path(package).parent.parent)
    env = {name: value for name, value in environ.items() if name != PASSWORD_VARIABLE}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, (top, env.get("PYTHONPATH", ""))))
    result = DeployResult()
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(
            [sys.executable, "-m", "pyinfra_deploys"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            env=env,
            text=True,
        ) as process,
        view.shown(),
    ):
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("a pipe was asked for")
        with process.stdin:
            process.stdin.write(request.model_dump_json())
        try:
            for line in process.stdout:
                event = EVENT.validate_json(line)
                result.take(event)
                view.take(event)
        except KeyboardInterrupt:
            process.terminate()
            raise
        code = process.wait()
        said.seek(0)
        last = said.read().decode(errors="replace").strip().splitlines()[-_STDERR_LINES:]
    if code == 2:
        raise typer.BadParameter("\n".join(last))
    if result.succeeded is None:
        raise CommandError(f"the deploy ended with {code} and did not say how it went\n" + "\n".join(last))
    return result


def _machines(command: CommandLine, hosts: Sequence[str], called: str | None) -> "tuple[Machine, ...]":
    from pyinfra_deploys.inventory import machines  # noqa: PLC0415 - the sources' own

    return machines(command.config_dir, hosts, environ=command.environ, hostname=command.hostname, called=called)


def _limited(machines: "Sequence[Machine]", limits: Sequence[str]) -> "tuple[Machine, ...]":
    chosen = tuple(
        machine
        for machine in machines
        if not limits
        or any(limit in machine.settings.node.roles or fnmatchcase(machine.name, limit) for limit in limits)
    )
    if not chosen:
        names = ", ".join(machine.target for machine in machines)
        raise typer.BadParameter(f"none of the machines ({names}) has such a role or name", param_hint="--limit")
    return chosen


def _sudo_passwords(machines: "Sequence[Machine]", environ: Mapping[str, str], *, ask: bool) -> dict[str, str]:
    """Return sudo's password by target, from each machine's file, the environment, or whoever sits there."""
    passwords = {}
    asking = []
    for machine in machines:
        file = machine.settings.deploy.sudo_password_file
        if not machine.needs_sudo:
            continue
        if file is not None:
            passwords[machine.target] = _first_line(file)
        else:
            asking.append(machine.target)
    given = environ.get(PASSWORD_VARIABLE, "")
    if asking and not given and ask:
        names = ", ".join(asking)
        given = typer.prompt(
            f"Password for sudo on {names} (none if it asks for none)",
            hide_input=True,
            default="",
            show_default=False,
            err=True,
        )
    if given:
        passwords |= dict.fromkeys(asking, given)
    return passwords


def _first_line(file: Path) -> str:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"deploy.sudo_password_file: {file} can't be read: {error}") from error
    if not lines or not lines[0]:
        raise CommandError(f"deploy.sudo_password_file: {file} has nothing in its first line")
    return lines[0]


def _confirm(machines: "Sequence[Machine]") -> None:
    if not sys.stdin.isatty():
        raise CommandError("this changes machines, and nobody can be asked: use --yes, or --dry to look only")
    for machine in machines:
        typer.echo(f"{machine.target}: {', '.join(machine.settings.node.roles)}", err=True)
    typer.confirm("Deploy to these machines?", abort=True, err=True)


def _request(
    command: CommandLine,
    machines: "Sequence[Machine]",
    *,
    called: str | None,
    parts: Sequence[str],
    dry: bool,
    passwords: Mapping[str, str],
) -> "Request":
    from pydantic import SecretStr  # noqa: PLC0415 - beside what needs it

    from pyinfra_deploys.events import Request  # noqa: PLC0415 - the sources' own

    return Request(
        config_dir=str(command.config_dir.absolute()),
        targets=tuple(machine.target for machine in machines),
        called=called,
        parts=tuple(parts),
        dry=dry,
        sudo_passwords={target: SecretStr(password) for target, password in passwords.items()},
    )


@contextmanager
def _errors() -> Iterator[None]:
    """Turn errors of the deploys into the command's; say so where the sources are not there."""
    try:
        from pyinfra_deploys.errors import DeployError  # noqa: PLC0415 - the sources' own
    except ImportError as error:
        raise CommandError(
            "machines are deployed from a checkout of Rouse's sources: run `python -m appliance deploy` there "
            f"(the module {error.name} is not here)"
        ) from error
    try:
        yield
    except DeployError as error:
        raise typer.BadParameter(str(error), param_hint="HOST") from None
