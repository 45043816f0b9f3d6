"""`rouse backup`: the machine's state, encrypted and elsewhere, and the way back."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from appliance.backup import restoring, verifying
from appliance.backup.errors import BackupError, BusyError, DamagedError, RefusedError
from appliance.backup.making import initialise, make
from appliance.backup.place import Place, book_of, opened, password_path
from appliance.backup.record import Record
from appliance.backup.snapshots import LATEST, Snapshot, chosen, snapshots
from appliance.cli.command_line import CommandError, CommandLine, command_line
from appliance.cli.model_tables import print_json, print_table, progress_line
from appliance.node.identity import node_name
from appliance.security.secrets import SecretError, ensure_secret, read_secret
from appliance.settings.model import Settings

app = typer.Typer(no_args_is_help=True, help="Back this machine's state up, and put it back.")

DAMAGED, REFUSED, BUSY = 3, 4, 5
_CODES: tuple[tuple[type[BackupError], int], ...] = (
    (DamagedError, DAMAGED),
    (RefusedError, REFUSED),
    (BusyError, BUSY),
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
PasswordFile = Annotated[
    Path | None,
    typer.Option(
        exists=True, dir_okay=False, help="File with the repository's password, on a machine that lost its own."
    ),
]
Which = Annotated[str, typer.Argument(metavar="[ID]", help="A backup's id, or its beginning.")]


@app.command()
def init(context: typer.Context) -> None:
    """Make the repository and its password, and show the password once, to be kept elsewhere."""
    line, settings = _settings(context)
    with _errors(), _opened(line, settings, new_password=True) as place:
        made = initialise(place)
        place.book.write(place.book.read().model_copy(update={"repository": place.restic.repository}))
    typer.echo(f"{settings.backup.repository}: {'is made' if made else 'was there, and the password opens it'}")
    if not book_of(settings).read().password_shown:
        _show_password(settings)


@app.command()
def password(context: typer.Context) -> None:
    """Show the repository's password, to be kept elsewhere: without it no backup can be read."""
    _, settings = _settings(context)
    with _errors():
        _show_password(settings)


@app.command()
def now(context: typer.Context, *, as_json: Json = False) -> None:
    """Back this machine up, and remove what the settings no longer keep."""
    line, settings = _settings(context)
    with _errors(), _opened(line, settings, new_password=True) as place, progress_line("back up", None) as shown:
        made = make(place, settings, config_dir=line.config_dir, node=node_name(settings.node), on_progress=shown.set)
    if as_json:
        print_json(asdict(made))
        return
    typer.echo(
        f"{made.snapshot}: {made.files} files, {decimal(made.size)}, {decimal(made.added)} of them new, in "
        f"{made.seconds:.1f} s; {made.forgotten} older ones removed"
    )
    for problem in made.problems:
        typer.echo(problem, err=True)
    if not book_of(settings).read().password_shown:
        typer.echo("Nobody has seen the password yet. `rouse backup password` shows it: keep it elsewhere.", err=True)


@app.command("list")
def list_backups(
    context: typer.Context,
    *,
    everyone: Annotated[bool, typer.Option("--all", help="Those of other machines too.")] = False,
    as_json: Json = False,
    password_file: PasswordFile = None,
) -> None:
    """List the backups in the repository, and say how the last run ended."""
    line, settings = _settings(context, password_file)
    with _errors(), _opened(line, settings) as place:
        place.restic.reach()
        found = snapshots(place.restic, node=None if everyone else node_name(settings.node))
        record = place.book.read()
    if as_json:
        print_json({"backups": [_as_json(one) for one in found], "last": record.model_dump(mode="json")})
        return
    if found:
        print_table(
            ("Id", "Made", "Machine", "»Size"),
            (
                (
                    one.short,
                    f"{one.time.astimezone():%Y-%m-%d %H:%M}",
                    one.hostname,
                    "?" if one.size is None else decimal(one.size),
                )
                for one in found
            ),
        )
    else:
        typer.echo("There is no backup yet: rouse backup now")
    typer.echo(_last(record), err=True)


@app.command()
def verify(
    context: typer.Context,
    *,
    everything: Annotated[
        bool, typer.Option("--all", help="Read all data, not only the part whose turn it is.")
    ] = False,
    as_json: Json = False,
    password_file: PasswordFile = None,
) -> None:
    """Read a part of the repository and compare it with its checksums; exit with 3 if something is damaged."""
    line, settings = _settings(context, password_file)
    with _errors(), _opened(line, settings) as place, _spinner() as step:
        step("verify")
        found = verifying.verify(place, parts=settings.backup.verify_parts, everything=everything)
    if as_json:
        print_json({"well": True, **asdict(found)})
        return
    what = "all of it" if found.parts == 1 else f"part {found.part} of {found.parts}"
    typer.echo(f"{settings.backup.repository}: well; {what} was read in {found.seconds:.1f} s")


@app.command()
def restore(
    context: typer.Context,
    which: Which = LATEST,
    *,
    to: Annotated[Path | None, typer.Option(file_okay=False, help="Only put the files into this empty folder.")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace what is there; it is kept in a folder beside.")
    ] = False,
    as_json: Json = False,
    password_file: PasswordFile = None,
) -> None:
    """Put state and settings back as they were; stop Rouse's services before."""
    line, settings = _settings(context, password_file)
    with _errors(), _opened(line, settings) as place, _spinner() as step:
        place.restic.reach()
        snapshot = chosen(place.restic, which, node=node_name(settings.node))
        if to is not None:
            done = restoring.restore_to(place, snapshot, to, on_step=step)
        else:
            done = restoring.restore(place, settings, snapshot, config_dir=line.config_dir, force=force, on_step=step)
    models = [model.model_dump(mode="json") for model in done.manifest.models]
    if as_json:
        print_json(
            {"backup": _as_json(snapshot), "folder": done.folder, "before": done.before, "files": len(done.manifest),
             "models": models}
        )  # fmt: skip
        return
    typer.echo(f"{done.folder}: {len(done.manifest)} files as of {snapshot.time.astimezone():%Y-%m-%d %H:%M}")
    if done.before is not None:
        typer.echo(f"{done.before}: what was there before; remove it when all is well")
    missing = [model for model in done.manifest.models if not (settings.paths.models / model.name).exists()]
    for model in missing if to is None else []:
        typer.echo(f"{model.name}: rouse model add {model.model}" if model.model else f"{model.name}: is missing")


def _settings(context: typer.Context, password_file: Path | None = None) -> tuple[CommandLine, Settings]:
    line = command_line(context)
    settings = line.load().settings
    if password_file is not None:
        backup = settings.backup.model_copy(update={"password_file": password_file.absolute()})
        settings = settings.model_copy(update={"backup": backup})
    return line, settings


@contextmanager
def _opened(line: CommandLine, settings: Settings, *, new_password: bool = False) -> Iterator[Place]:
    """Have this machine's backups for ourselves; a restore that was cut short is finished first."""
    with opened(settings, new_password=new_password) as place:
        before = restoring.finish(settings, config_dir=line.config_dir)
        if before is not None:
            typer.echo(f"A restore that was cut short is finished; {before} keeps what was there before.", err=True)
        yield place


def _show_password(settings: Settings) -> None:
    path = password_path(settings)
    try:
        secret = ensure_secret(path) if path.exists() else read_secret(path)
    except SecretError as error:
        raise CommandError(str(error)) from error
    typer.echo("Keep this password elsewhere, on paper for example. Without it no backup can be read:", err=True)
    typer.echo(secret)
    book = book_of(settings)
    book.write(book.read().model_copy(update={"password_shown": True}))


def _last(record: Record) -> str:
    if not record.attempted:
        return "Nothing was backed up from this state folder yet."
    if record.succeeded < record.attempted:
        return "The last run did not end well; see journalctl -u rouse-backup."
    return f"The last run took {record.seconds:.1f} s and added {decimal(record.added)}."


def _as_json(snapshot: Snapshot) -> dict[str, Any]:
    return {"id": snapshot.id, "time": snapshot.time.isoformat(), "machine": snapshot.hostname, "size": snapshot.size}


@contextmanager
def _errors() -> Iterator[None]:
    """Say an error; its exit code tells scripts what to do about it."""
    try:
        yield
    except BackupError as error:
        code = next((code for kind, code in _CODES if isinstance(error, kind)), 1)
        typer.echo(f"rouse: {error}", err=True)
        raise typer.Exit(code) from None


@contextmanager
def _spinner() -> Iterator[Callable[[str], None]]:
    """Show what is going on, on standard error."""
    if not sys.stderr.isatty():
        yield lambda text: typer.echo(text, err=True)
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=None)
        yield lambda text: progress.update(task, description=text)
