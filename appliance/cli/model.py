"""`rouse model`: which models there are, what fits this machine, and what is in the models folder."""

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

import aiohttp
import psutil
import typer
from pydantic import TypeAdapter, ValidationError
from yarl import URL

from appliance.cli import model_tables as show_as
from appliance.cli.command_line import CommandError, command_line
from appliance.models import advice, machine, verifying
from appliance.models.adding import Added, Adder, Sources
from appliance.models.catalogue import Catalogue, FileName, MachineClass, Purpose, Sha256, load
from appliance.models.download import Limits, Progress
from appliance.models.errors import ModelError, RefusedError
from appliance.models.folder import ModelFolder
from appliance.models.transport import Transport, parse_url
from appliance.settings.model import Settings

app = typer.Typer(no_args_is_help=True, help="Find, download, verify and remove models.")

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
ForPurpose = Annotated[str | None, typer.Option("--for", metavar="PURPOSE", help="Only models for this purpose.")]
OfClass = Annotated[str | None, typer.Option("--class", metavar="CLASS", help="Only legacy, desktop or gpu.")]
_VOUCHED = {
    "catalogue": "its checksum is the catalogue's",
    "user": "its checksum is the one that you gave",
    "source": "its checksum is what the source itself announced: the catalogue has none to compare it with",
    "nobody": "nobody vouches for its checksum",
}
_PASSED = {"good": "good", "bad": "BAD", "missing": "MISSING", "unknown": "nothing to compare with"}
_STALL_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class _Here:
    """What every command works with."""

    settings: Settings
    catalogue: Catalogue
    folder: ModelFolder


@app.callback()
def model(
    context: typer.Context,
    catalogue: Annotated[
        Path | None, typer.Option(dir_okay=False, exists=True, help="Another catalogue than Rouse's own.")
    ] = None,
) -> None:
    """Find, download, verify and remove models."""
    context.meta["catalogue"] = catalogue


def _here(context: typer.Context) -> _Here:
    settings = command_line(context).load().settings
    return _Here(settings, load(context.meta["catalogue"]), ModelFolder(settings.paths.models))


def _chosen(catalogue: Catalogue, purpose: str | None, machine_class: str | None) -> list[Any]:
    for given, known, what in (
        (purpose, get_args(Purpose.__value__), "purpose"),
        (machine_class, get_args(MachineClass.__value__), "class"),
    ):
        if given is not None and given not in known:
            raise typer.BadParameter(f"no such {what}; there are {', '.join(known)}")
    return [
        entry
        for entry in catalogue.models
        if (purpose is None or purpose in entry.purposes) and (machine_class is None or entry.machine == machine_class)
    ]


@app.command("list")
def list_models(
    context: typer.Context,
    *,
    purpose: ForPurpose = None,
    machine_class: OfClass = None,
    here: Annotated[bool, typer.Option("--here", help="Only what is in the models folder.")] = False,
    json: Json = False,
) -> None:
    """List the catalogue, and what is in the models folder."""
    at = _here(context)
    present, parts = at.folder.present(), at.folder.parts()
    states = {
        entry.id: (entry, show_as.state_of(entry, present, parts))
        for entry in _chosen(at.catalogue, purpose, machine_class)
    }
    shown = [(entry, state) for entry, state in states.values() if state or not here]
    others = [name for name in present if at.catalogue.of_file(name) is None]
    if json:
        show_as.print_json(
            {
                "models": [show_as.as_json(entry, at.catalogue, at.folder) for entry, _ in shown],
                "others": {name: show_as.record_json(present[name]) for name in others},
            }
        )
        return
    columns = ("Id", "State", "Class", "»Size", "»Context", "For", "Licence")
    show_as.print_table(columns, (show_as.list_row(entry, state, at.catalogue) for entry, state in shown))
    for name in others:
        typer.echo(f"{name}  {show_as.size_text(present[name].size)}, here, not in the catalogue")


@app.command()
def show(
    context: typer.Context,
    model_id: Annotated[str, typer.Argument(metavar="ID", help="A model of the catalogue.")],
    *,
    json: Json = False,
) -> None:
    """Show all that is known of a model: licence, memory, checksum, and what could not be confirmed."""
    at = _here(context)
    document = show_as.as_json(at.catalogue.model(model_id), at.catalogue, at.folder)
    if json:
        show_as.print_json(document)
        return
    show_as.print_table(("", ""), show_as.flat(document))


@app.command()
def advise(
    context: typer.Context,
    *,
    purpose: ForPurpose = None,
    machine_class: OfClass = None,
    slots: Annotated[int, typer.Option(min=1, max=256, help="Requests at the same time.")] = 4,
    tokens: Annotated[int, typer.Option("--context", min=256, max=1 << 20, help="Tokens of each request.")] = 4096,
    again: Annotated[bool, typer.Option("--again", help="Measure the machine again.")] = False,
    json: Json = False,
) -> None:
    """Say what fits this machine, and how fast it would be at best. Measures for about two seconds, once."""
    at = _here(context)
    speed = machine.measured(at.settings.paths.state, again=again)
    free = psutil.virtual_memory()
    memory = advice.Memory(free.total, free.available)
    found = [
        advice.advise(entry, memory=memory, speed=speed, context=tokens, slots=slots)
        for entry in _chosen(at.catalogue, purpose, machine_class)
    ]
    order = ("fits", "tight", "unknown", "too-large")
    found.sort(key=lambda one: (order.index(one.fit), -one.model.parameters))
    if json:
        document = {
            "memory": {"total": memory.total, "available": memory.available},
            "speed": speed.model_dump(mode="json"),
            "context": tokens,
            "slots": slots,
            "models": [show_as.advice_json(one) for one in found],
        }
        show_as.print_json(document)
        return
    typer.echo(
        f"{speed.key.processor}, {speed.key.threads} cores: memory {show_as.size_text(memory.total)}, "
        f"{show_as.size_text(memory.available)} of it free, read at {speed.read_bytes_per_second / 1e9:.1f} GB/s; "
        f"{speed.multiply_flops / 1e9:.0f} GFLOPS\n"
        f"For {slots} requests of {tokens} tokens each; tokens a second are an upper bound, for one request.\n"
    )
    columns = ("Id", "", "»Memory", "»Writes/s", "»Reads/s", "For")
    show_as.print_table(columns, map(show_as.advice_row, found))


@app.command()
def add(
    context: typer.Context,
    what: Annotated[str, typer.Argument(metavar="ID|URL", help="A model of the catalogue, or a GGUF file's URL.")],
    *,
    sha256: Annotated[str | None, typer.Option(help="Checksum that the URL's file must have.")] = None,
    name: Annotated[str | None, typer.Option(metavar="FILE", help="Name for the URL's file.")] = None,
    unverified: Annotated[
        bool, typer.Option("--unverified", help="Accept a URL's file whose checksum nobody knows.")
    ] = False,
    insecure_http: Annotated[
        bool, typer.Option("--insecure-http", help="Allow http, not only https, to other machines.")
    ] = False,
    token_file: Annotated[
        Path | None, typer.Option(help="File with the token for the model hub, or for the URL's host.")
    ] = None,
    max_size: Annotated[int, typer.Option(min=1, metavar="GB", help="Largest file.")] = 256,
    json: Json = False,
) -> None:
    """Download a model, verify it, and give it its name. Started again after a stop, it goes on where it was."""
    at = _here(context)
    sources = Sources(os.environ, _token(token_file), token_for_url=token_file is not None)
    is_url = "://" in what
    if not is_url and (sha256 or name or unverified):
        raise typer.BadParameter("--sha256, --name and --unverified go with a URL")
    entry = None if is_url else at.catalogue.model(what)
    url = _url(what, name, sha256) if is_url else None
    total = None if entry is None else show_as.total_size(entry)[0]

    async def work(line: show_as.ProgressLine) -> list[Added]:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=_STALL_SECONDS)
        async with aiohttp.ClientSession(
            timeout=timeout, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False, trust_env=True
        ) as session:
            adder = Adder(
                at.folder,
                transport=Transport(session, insecure=insecure_http),
                sources=sources,
                limits=Limits(size=max_size * 10**9),
                progress=Progress(total=line.set, note=line.note),
            )
            if entry is not None:
                return await adder.model(entry)
            assert url is not None  # noqa: S101 - one of both
            return [await adder.url(*url, sha256=sha256, unverified=unverified)]

    with at.folder.lock(), show_as.progress_line(what if entry is None else entry.id, total) as line:
        try:
            added = asyncio.run(work(line))
        except KeyboardInterrupt:
            typer.echo("stopped; the same command goes on where it was", err=True)
            raise typer.Exit(130) from None
    if json:
        show_as.print_json(
            [{"file": one.name, "downloaded": one.downloaded, **one.record.model_dump(mode="json")} for one in added]
        )
        return
    for one in added:
        done = "added" if one.downloaded else "was here and is right"
        typer.echo(f"{at.folder.path / one.name}: {done}; {_VOUCHED[one.record.voucher]}.")
        typer.echo(f"SHA-256 {one.record.sha256}")
    if entry is not None:
        licence = at.catalogue.licences[entry.licence]
        if licence.commercial != "yes":
            typer.echo(f"Licence: {licence.name}, with conditions on its use: {licence.url}")


def _url(what: str, name: str | None, sha256: str | None) -> tuple[URL, str]:
    url = parse_url(what)
    name = name or url.name
    for value, kind, option in ((name, FileName, "--name"), (sha256, Sha256, "--sha256")):
        try:
            if value is not None:
                TypeAdapter(kind).validate_python(value)
        except ValidationError:
            expected = "a name like model.gguf" if option == "--name" else "64 digits from 0 to 9 and a to f"
            raise typer.BadParameter(f"{option}: expected {expected}") from None
    return url, name


def _token(path: Path | None) -> str | None:
    """Return the hub's token: from the file, else from HF_TOKEN."""
    if path is None:
        return os.environ.get("HF_TOKEN") or None
    try:
        with path.open(encoding="utf-8") as file:
            token = file.readline(4096).strip()
    except (OSError, ValueError) as error:
        raise CommandError(f"--token-file {path}: can't be read: {error}") from error
    if not token or not token.isascii() or not token.isprintable():
        raise CommandError(f"--token-file {path}: its first line is no token")
    return token


@app.command()
def remove(
    context: typer.Context,
    what: Annotated[str, typer.Argument(metavar="ID|FILE", help="A model, or a file of the models folder.")],
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Even if an expert of the settings needs it.")] = False,
) -> None:
    """Remove a model, or what was begun of it."""
    at = _here(context)
    names = at.folder.names(what, at.catalogue)
    users = {
        expert: path.name
        for expert, settings in at.settings.experts.items()
        if (path := (at.folder.path / settings.model)).resolve()
        in {(at.folder.path / name).resolve() for name in names}
    }
    if users and not force:
        experts = ", ".join(f"experts.{expert}" for expert in users)
        raise RefusedError(f"{what}: {experts} needs it; change the settings first, or say --force")
    if not yes:
        typer.confirm(f"Remove {', '.join(names)} from {at.folder.path}?", abort=True)
    with at.folder.lock():
        for name in names:
            at.folder.remove(name)
            typer.echo(f"{at.folder.path / name}: removed")


@app.command()
def verify(
    context: typer.Context,
    what: Annotated[str | None, typer.Argument(metavar="[ID|FILE]", help="Only this model or file.")] = None,
    *,
    json: Json = False,
) -> None:
    """Compute the checksums of what is here and compare; exit with 1 if any is bad or missing."""
    at = _here(context)
    names = at.folder.names(what, at.catalogue) if what is not None else verifying.names_to_verify(at.folder)
    present = at.folder.present()
    total = sum(present[name].size for name in names if name in present)
    with show_as.progress_line("verify", total) as line:
        found = verifying.verify(at.folder, names, at.catalogue, line.advance)
    if json:
        show_as.print_json(
            [
                {"file": one.name, "verdict": one.verdict, "sha256": one.sha256, "expected": one.expected}
                for one in found
            ]
        )
    for one in [] if json else found:
        by = f" ({_VOUCHED[one.voucher]})" if one.voucher and one.verdict == "good" else ""
        typer.echo(f"{one.name}: {_PASSED[one.verdict]}{by}")
    if any(one.verdict in {"bad", "missing"} for one in found):
        raise typer.Exit(1)


@app.command()
def path(
    context: typer.Context,
    what: Annotated[str | None, typer.Argument(metavar="[ID|FILE]", help="Where this model's weights are.")] = None,
) -> None:
    """Print the models folder, or where a model's weights are; exit with 1 if they are not here."""
    at = _here(context)
    if what is None:
        typer.echo(at.folder.path)
        return
    names = at.folder.names(what, at.catalogue)
    listed = next((entry for entry in at.catalogue.models if entry.id == what), None)
    name = listed.weights.name if listed is not None else names[0]
    if name not in at.folder.present():
        raise ModelError(f"{what}: is not complete; `rouse model add {what}` goes on with it")
    typer.echo(at.folder.path / name)
