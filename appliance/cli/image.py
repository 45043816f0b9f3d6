"""`rouse image`: build, sign, verify and publish the appliance image, from a checkout of the sources."""

import asyncio
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from appliance import __version__
from appliance.cli.command_line import CommandError

if TYPE_CHECKING:
    from image_build.build import Build
    from image_build.process import Runner

app = typer.Typer(no_args_is_help=True, help="Build, sign, verify and publish the appliance image.")

EPOCH_VARIABLE = "SOURCE_DATE_EPOCH"
USERNAME_VARIABLE = "ROUSE_REGISTRY_USERNAME"
PASSWORD_VARIABLE = "ROUSE_REGISTRY_PASSWORD"  # noqa: S105 - a variable's name
_PIPE_WIDTH = 120
_LINE_WIDTH = 70

Version = Annotated[str, typer.Option("--image-version", help="Version of the image.")]
ArchitectureOption = Annotated[str, typer.Option("--architecture", help="amd64 or arm64.")]
Work = Annotated[Path, typer.Option(file_okay=False, help="Folder for everything that the build makes and keeps.")]
type OnText = Callable[[str], None]

Folder = Annotated[Path, typer.Argument(exists=True, file_okay=False, help="What `rouse image build` published.")]


@app.command()
def build(
    *,
    version: Version = __version__,
    architecture: ArchitectureOption = "amd64",
    work: Work = Path("build/image"),
    output: Annotated[Path | None, typer.Option(file_okay=False, help="Folder for what is published.")] = None,
    models: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="Folder of models that the image brings along.")
    ] = None,
    verify_key: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Public keys that updates are accepted of.")
    ] = None,
) -> None:
    """Build the disk image, the files for updates and the OCI image."""
    with _errors(), _shown() as (on_step, on_line):
        made = _prepared(
            version=version,
            architecture=architecture,
            work=work,
            output=output,
            on_step=on_step,
            on_line=on_line,
            models=models,
            verify_key=verify_key,
        )
        folder = made.make()
    _print_files(folder)
    for name, seconds in made.seconds.items():
        typer.echo(f"{name}: {seconds:.1f} s", err=True)


@app.command()
def repack(
    *,
    version: Annotated[str, typer.Option("--image-version", help="Version to give it.")],
    architecture: ArchitectureOption = "amd64",
    work: Work = Path("build/image"),
    output: Annotated[Path | None, typer.Option(file_okay=False, help="Folder for what is published.")] = None,
    verify_key: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Public keys that updates are accepted of.")
    ] = None,
) -> None:
    """Pack the last build's root again under another version: the files for updates alone, to try an update with."""
    with _errors(), _shown() as (on_step, on_line):
        folder = _prepared(
            version=version,
            architecture=architecture,
            work=work,
            output=output,
            on_step=on_step,
            on_line=on_line,
            verify_key=verify_key,
        ).repack()
    _print_files(folder)


def wheelhouse(
    folder: Annotated[Path, typer.Argument(file_okay=False, help="Folder that is made, or replaced.")],
    *,
    architecture: ArchitectureOption = "amd64",
    work: Work = Path("build/image"),
) -> None:
    """Make the folder of wheels that Debian machines are deployed from (`deploy.wheelhouse`)."""
    with _errors(), _shown() as (on_step, on_line):
        from image_build.gathering import gather  # noqa: PLC0415 - the sources' own

        made = _prepared(
            version=__version__,
            architecture=architecture,
            work=work,
            output=None,
            on_step=on_step,
            on_line=on_line,
        )
        gather(made.wheelhouse(), folder)
    typer.echo(f"{folder}: {sum(1 for _ in folder.glob('*.whl'))} wheels")


@app.command()
def lock(*, architecture: ArchitectureOption = "amd64", work: Work = Path("build/image")) -> None:
    """Take the Debian mirror's newest packages into the lock file."""
    with _errors(), _shown() as (on_step, on_line):
        _prepared(
            version=__version__,
            architecture=architecture,
            work=work,
            output=None,
            on_step=on_step,
            on_line=on_line,
        ).lock()


@app.command()
def inspect(
    folder: Folder,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
) -> None:
    """Show what was published: files, partitions, packages."""
    with _errors():
        from image_build.inspection import inspect as look  # noqa: PLC0415 - the sources' own

        found = look(folder)
    if as_json:
        typer.echo(found.model_dump_json(indent=1))
        return
    console = _console()
    console.print(found.files_table(), found.partitions_table(), markup=False)
    console.print(found.summary(), markup=False)


@app.command()
def sign(
    folder: Folder,
    *,
    key: Annotated[str, typer.Option(help="Fingerprint or address of your secret key in GnuPG.")],
    gpg_home: Annotated[Path | None, typer.Option(exists=True, file_okay=False, help="GnuPG's folder.")] = None,
) -> None:
    """Sign the checksums, as machines verify them before an update."""
    with _errors():
        from image_build import signing  # noqa: PLC0415 - the sources' own

        typer.echo(signing.sign(folder, runner=_runner(folder.parent / "sign.log"), key=key, home=gpg_home))


@app.command()
def verify(
    folder: Folder,
    *,
    keys: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="File of the public keys that you trust.")],
) -> None:
    """Verify the signature and every file."""
    with _errors():
        from image_build import signing  # noqa: PLC0415 - the sources' own

        names = signing.verify(folder, runner=_runner(folder.parent / "verify.log"), keys=keys)
    typer.echo(f"{len(names)} files are what was signed.")


@app.command()
def push(
    folder: Folder,
    target: Annotated[str, typer.Argument(help="Registry and repository, such as registry.example.org/rouse.")],
    *,
    plain_http: Annotated[bool, typer.Option("--plain-http", help="Use HTTP; for a registry on this machine.")] = False,
    username: Annotated[str | None, typer.Option(envvar=USERNAME_VARIABLE, help="Name at the registry.")] = None,
    password_file: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help=f"File with the password; {PASSWORD_VARIABLE} otherwise."),
    ] = None,
) -> None:
    """Publish the OCI image and the disk image to an OCI registry; what is there already is not sent again."""
    with _errors(), _shown() as (on_step, on_line):
        from image_build.publishing import Credentials, publish  # noqa: PLC0415 - the sources' own

        password = password_file.read_text().strip() if password_file else os.environ.get(PASSWORD_VARIABLE)
        credentials = Credentials(username, password or "") if username else None
        references = asyncio.run(
            publish(folder, target, plain_http=plain_http, credentials=credentials, on_step=on_step, on_line=on_line)
        )
    for reference in references:
        typer.echo(reference)


def _prepared(
    *,
    version: str,
    architecture: str,
    work: Path,
    output: Path | None,
    on_step: OnText,
    on_line: OnText,
    models: Path | None = None,
    verify_key: Path | None = None,
) -> "Build":
    from image_build.build import Build, Inputs  # noqa: PLC0415 - the sources' own
    from image_build.layout import PLATFORMS  # noqa: PLC0415 - the sources' own
    from image_build.source import checkout, source_epoch  # noqa: PLC0415 - the sources' own

    if architecture not in PLATFORMS:
        raise CommandError(f"there is no image for {architecture!r} (there are: {', '.join(PLATFORMS)})")
    top = checkout()
    inputs = Inputs(
        top=top,
        version=version,
        architecture=PLATFORMS[architecture].architecture,
        epoch=source_epoch(top, os.environ.get(EPOCH_VARIABLE)),
        models=models,
        verify_key=verify_key,
    )
    work = work.resolve()
    runner = _runner(work / "log" / "build.log", on_line)
    return Build(inputs, work=work, output=(output or work / "out" / version).resolve(), runner=runner, on_step=on_step)


@contextmanager
def _errors() -> Iterator[None]:
    """Turn errors of the build into the command's; say so where the sources are not there."""
    try:
        from image_build.errors import ImageError  # noqa: PLC0415 - the sources' own

        try:
            yield
        except ImageError as error:
            raise CommandError(str(error)) from error
    except ImportError as error:
        raise CommandError(
            "images are built from a checkout of Rouse's sources: run `make image` there "
            f"(the module {error.name} is not here)"
        ) from error


@contextmanager
def _shown() -> Iterator[tuple[OnText, OnText]]:
    """Show the step and the last line that was said; without a terminal, a line for each step."""
    console = Console(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[line]}"),
    )
    with Progress(*columns, console=console, refresh_per_second=4, disable=not console.is_terminal) as progress:
        tasks: list[int] = []

        def show_step(name: str) -> None:
            if not console.is_terminal:
                typer.echo(f"{time.strftime('%X')} {name}", err=True)
                return
            if tasks:
                progress.update(progress.tasks[-1].id, line="", total=1, completed=1)
            tasks.append(progress.add_task(name, line="", total=None))

        def show_line(text: str) -> None:
            if tasks:
                progress.update(progress.tasks[-1].id, line=text[:_LINE_WIDTH])

        yield show_step, show_line


def _runner(log: Path, on_line: OnText | None = None) -> "Runner":
    from image_build.process import Runner  # noqa: PLC0415 - the sources' own

    return Runner(log, on_line=on_line or (lambda _: None))


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH)


def _print_files(folder: Path) -> None:
    table = Table(title=str(folder), title_justify="left")
    table.add_column("File")
    table.add_column("MB", justify="right")
    for path in sorted(folder.iterdir()):
        table.add_row(path.name, f"{path.stat().st_size / 1e6:,.1f}")
    _console().print(table, markup=False)
