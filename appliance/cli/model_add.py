"""`rouse model add`."""

import asyncio
import os
from pathlib import Path
from typing import Annotated

import aiohttp
import typer
from pydantic import TypeAdapter, ValidationError
from yarl import URL

from appliance.cli import model_tables as show_as
from appliance.cli.command_line import CommandError
from appliance.cli.model_folder import VOUCHED, Json, here
from appliance.models.adding import Added, Adder, Sources
from appliance.models.catalogue import FileName, Sha256
from appliance.models.download import Limits, Progress
from appliance.models.transport import Transport, parse_url

_STALL_SECONDS = 60.0


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
    at = here(context)
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
        typer.echo(f"{at.folder.path / one.name}: {done}; {VOUCHED[one.record.voucher]}.")
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
        text, name = os.environ.get("HF_TOKEN", ""), "HF_TOKEN"
        if not text:
            return None
    else:
        name = f"--token-file {path}"
        try:
            with path.open(encoding="utf-8") as file:
                text = file.readline(4096)
        except (OSError, ValueError) as error:
            raise CommandError(f"{name}: can't be read: {error}") from error
    token = text.strip()
    if not token or not token.isascii() or not token.isprintable():
        raise CommandError(f"{name}: is no token")
    return token
