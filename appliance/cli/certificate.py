"""`rouse certificate`: the house's certificate authority, on the hub."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from appliance import durable_files
from appliance.cli.command_line import CommandError, command_line
from appliance.node.identity import node_name
from appliance.security.broker import is_node_of_another_hub
from appliance.security.ca.authority import Authority, ca_folder
from appliance.security.ca.certificates import key_pem, new_key
from appliance.security.ca.errors import CaError
from appliance.security.ca.names import HUB_ACCOUNT
from appliance.security.ca.store import Generation, Issued
from appliance.security.house import house, house_authority
from appliance.security.hub_certificate import HubCertificate, own_addresses, own_names
from appliance.security.layout import secrets_folder
from appliance.security.secrets import SecretError
from appliance.settings.model import Settings

DAY = 86_400.0
SOON = 30 * DAY
_PIPE_WIDTH = 160

app = typer.Typer(no_args_is_help=True, help="The certificates of this house's machines; on the hub.")

Json = Annotated[bool, typer.Option("--json", help="Print a JSON object, for scripts.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


@dataclass(frozen=True, slots=True)
class Row:
    """A certificate, and how it is."""

    issued: Issued
    state: str

    def as_json(self) -> dict[str, Any]:
        """Return it for a script."""
        one = self.issued
        return {
            "name": one.name,
            "kind": one.kind,
            "roles": list(one.roles),
            "state": self.state,
            "serial": f"{one.serial:x}",
            "key": one.fingerprint,
            "ca": one.generation,
            "begins": one.begins,
            "ends": one.ends,
            "revoked": one.revoked,
        }


@app.command()
def setup(context: typer.Context) -> None:
    """Make the CA, this hub's certificate, and what mosquitto reads; nothing that is there is changed.

    `rouse hub` does the same when it starts.
    """
    settings = _hub_settings(context)
    with _clear_errors():
        offices = house(settings, name=node_name(settings.node))
        offices.prepare()
    typer.echo(f"The CA is in {ca_folder(settings.paths.state)}.")


@app.command("list")
def list_certificates(
    context: typer.Context,
    *,
    every: Annotated[bool, typer.Option("--all", help="Also those that were renewed, revoked or have ended.")] = False,
    as_json: Json = False,
) -> None:
    """Show who has a certificate, until when, and which CAs are trusted."""
    settings = _hub_settings(context)
    with _clear_errors():
        authority = _authority(settings)
        generations, rows = authority.generations, _rows(authority.issued(), authority.generations)
        cas = [_ca_as_json(authority, one) for one in generations]
    shown = [row for row in rows if every or row.state in {"valid", "renew soon", "to be renewed"}]
    if as_json:
        typer.echo(json.dumps({"cas": cas, "certificates": [row.as_json() for row in shown]}, indent=2))
        return
    table = Table("Name", "Roles", "State", "Until", "CA", "Serial", box=None, pad_edge=False)
    for row in shown:
        one = row.issued
        roles = ", ".join(one.roles)
        table.add_row(one.name, roles, row.state, _date(one.ends), one.generation[:8], f"{one.serial:x}"[:16])
    console = Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, markup=False)
    console.print(table)
    for ca in cas:
        what = "signs" if ca["retires"] is None else f"was replaced, and is trusted until {_date(ca['retires'])}"
        console.print(f"CA {ca['id'][:8]}: {what}; valid until {_date(ca['ends'])}", style="dim")


@app.command()
def revoke(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of a node, or a serial number as `list` shows it.")],
    *,
    yes: Yes = False,
) -> None:
    """Make a node's certificates worthless at once; `rouse pair forget` takes its account as well."""
    settings = _hub_settings(context)
    with _clear_errors():
        authority = _authority(settings)
        counting = [
            row.issued for row in _rows(authority.issued(), authority.generations) if row.issued.revoked is None
        ]
        of_name = [one for one in counting if one.name == name and one.kind != "hub"]
        of_serial = [one for one in counting if len(name) >= 8 and f"{one.serial:x}".startswith(name)]
        if not of_name and len(of_serial) != 1:
            raise CommandError(f"nobody called {name} has a certificate that counts; see rouse certificate list")
        if of_serial and not of_name and of_serial[0].kind == "hub":
            raise CommandError("this is the hub's own; rouse certificate renew hub makes another one")
        if not yes:
            typer.confirm(f"{name} can't talk to this house any more until it is paired anew. Revoke it?", abort=True)
        if of_name:
            authority.revoke(name)
        else:
            authority.revoke_certificate(of_serial[0].serial)
    typer.echo(f"The certificate of {name} is revoked. A hub that runs notices it within seconds.")


@app.command()
def renew(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of a node, or `hub`.")],
) -> None:
    """Have a machine's certificate renewed before its time; a node does it as soon as it is online."""
    settings = _hub_settings(context)
    with _clear_errors():
        authority = _authority(settings)
        if name in {"hub", HUB_ACCOUNT}:
            certificate = HubCertificate(
                secrets_folder(settings.paths.state, "hub"), days=settings.pairing.certificate_days
            )
            certificate.ensure(authority, names=own_names(), addresses=own_addresses(), anew=True)
            typer.echo("The hub has a new certificate. A hub that runs uses it within seconds.")
            return
        authority.want_renewal(name)
    typer.echo(f"{name} will renew its certificate as soon as it is online.")


@app.command()
def issue(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="What the program is called: homeassistant, prometheus …")],
    out: Annotated[Path, typer.Option(exists=True, file_okay=False, help="Folder for NAME.key, NAME.pem and ca.pem.")],
    *,
    monitor: Annotated[bool, typer.Option("--monitor", help="It may read /health and /metrics of experts.")] = False,
) -> None:
    """Make a key and a certificate for a program that is no node; run it again to renew them."""
    settings = _hub_settings(context)
    key = new_key()
    with _clear_errors():
        authority = _authority(settings)
        days = settings.pairing.certificate_days
        chain = authority.sign_client(key.public_key(), name=name, monitor=monitor, days=days)
        trusted = authority.ca_pem
    try:
        durable_files.write(out / f"{name}.key", key_pem(key), mode=0o600)
        durable_files.write(out / f"{name}.pem", chain, mode=0o644)
        durable_files.write(out / "ca.pem", trusted, mode=0o644)
    except OSError as error:
        raise CommandError(f"{out}: can't be written: {error}") from error
    typer.echo(f"{out / name}.key and .pem are valid until {_date(time.time() + days * DAY)}.")


@app.command("rotate-ca")
def rotate_ca(
    context: typer.Context,
    *,
    at_once: Annotated[
        bool, typer.Option("--at-once", help="Stop trusting the present CA now: its key has become known to others.")
    ] = False,
    yes: Yes = False,
) -> None:
    """Make a new CA. Nodes learn of it and renew their certificates by themselves, unless --at-once."""
    settings = _hub_settings(context)
    with _clear_errors():
        authority = _authority(settings)
        if at_once and not yes:
            typer.confirm("Every node must be paired anew after this. Go on?", abort=True)
        generation = authority.rotate(at_once=at_once)
        former = authority.generations[1:]
    until = f" The former one is trusted until {_date(former[0].retires)}." if former else " No former one is trusted."
    typer.echo(f"The CA {generation.id[:8]} signs from now on.{until}")


def _hub_settings(context: typer.Context) -> Settings:
    settings = command_line(context).load().settings
    if is_node_of_another_hub(settings):
        raise CommandError("this machine is no hub: its certificate comes from the hub that it was paired with")
    return settings


def _authority(settings: Settings) -> Authority:
    name = node_name(settings.node)
    if not (ca_folder(settings.paths.state) / "book.json").exists():
        raise CommandError("this hub has no CA yet: rouse certificate setup, or start rouse hub")
    return house_authority(settings, name=name)


@contextmanager
def _clear_errors() -> Iterator[None]:
    try:
        yield
    except (CaError, SecretError, OSError) as error:
        raise CommandError(str(error)) from error


def _rows(issued: list[Issued], generations: tuple[Generation, ...]) -> list[Row]:
    now, trusted = time.time(), {one.id for one in generations}
    newest = {(one.kind, one.name): one.serial for one in issued}
    rows = []
    for one in issued:
        if one.revoked is not None:
            state = "revoked"
        elif one.ends <= now:
            state = "ended"
        elif one.generation not in trusted:
            state = "of a former CA"
        elif newest[one.kind, one.name] != one.serial:
            state = "was renewed"
        elif one.wanted_anew:
            state = "to be renewed"
        else:
            state = "renew soon" if one.ends - now < SOON else "valid"
        rows.append(Row(one, state))
    return rows


def _ca_as_json(authority: Authority, generation: Generation) -> dict[str, Any]:
    ends = authority.certificate(generation.id).not_valid_after_utc.timestamp()
    return {"id": generation.id, "made": generation.made, "ends": ends, "retires": generation.retires}


def _date(when: float | None) -> str:
    return "" if when is None else time.strftime("%Y-%m-%d", time.gmtime(when))
