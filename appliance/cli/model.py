"""`rouse model`: which models there are, what fits this machine, and what is in the models folder."""

from pathlib import Path
from typing import Annotated, get_args

import psutil
import typer

from appliance.cli import model_tables as show_as
from appliance.cli.model_add import add
from appliance.cli.model_folder import VOUCHED, Json, here, use_catalogue
from appliance.models import advice, machine, verifying
from appliance.models.catalogue import Catalogue, MachineClass, Model, Purpose
from appliance.models.errors import ModelError, RefusedError

app = typer.Typer(no_args_is_help=True, help="Find, download, verify and remove models.")

ForPurpose = Annotated[str | None, typer.Option("--for", metavar="PURPOSE", help="Only models for this purpose.")]
OfClass = Annotated[str | None, typer.Option("--class", metavar="CLASS", help="Only legacy, desktop or gpu.")]
_PASSED = {"good": "good", "bad": "BAD", "missing": "MISSING", "unknown": "nothing to compare with"}
app.command()(add)


@app.callback()
def model(
    context: typer.Context,
    catalogue: Annotated[
        Path | None, typer.Option(dir_okay=False, exists=True, help="Another catalogue than Rouse's own.")
    ] = None,
) -> None:
    """Find, download, verify and remove models."""
    use_catalogue(context, catalogue)


def _chosen(catalogue: Catalogue, purpose: str | None, machine_class: str | None) -> list[Model]:
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
    only_here: Annotated[bool, typer.Option("--here", help="Only what is in the models folder.")] = False,
    json: Json = False,
) -> None:
    """List the catalogue, and what is in the models folder."""
    at = here(context)
    present, parts = at.folder.present(), at.folder.parts()
    states = {
        entry.id: (entry, show_as.state_of(entry, present, parts))
        for entry in _chosen(at.catalogue, purpose, machine_class)
    }
    shown = [(entry, state) for entry, state in states.values() if state or not only_here]
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
    at = here(context)
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
    """Say what fits this machine, and about how fast it would be. Measures for a few seconds, once."""
    at = here(context)
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
        f"For {slots} requests of {tokens} tokens each; speeds are estimates in tokens a second, one request.\n"
        "Small models slow down much when their context is long.\n"
    )
    columns = ("Id", "", "»Memory", "»Writes/s", "»Reads/s", "For")
    show_as.print_table(columns, map(show_as.advice_row, found))


@app.command()
def remove(
    context: typer.Context,
    what: Annotated[str, typer.Argument(metavar="ID|FILE", help="A model, or a file of the models folder.")],
    *,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Even if an expert of the settings needs it.")] = False,
) -> None:
    """Remove a model, or what was begun of it."""
    at = here(context)
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
    at = here(context)
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
        by = f" ({VOUCHED[one.voucher]})" if one.voucher and one.verdict == "good" else ""
        typer.echo(f"{one.name}: {_PASSED[one.verdict]}{by}")
    if any(one.verdict in {"bad", "missing"} for one in found):
        raise typer.Exit(1)


@app.command()
def path(
    context: typer.Context,
    what: Annotated[str | None, typer.Argument(metavar="[ID|FILE]", help="Where this model's weights are.")] = None,
) -> None:
    """Print the models folder, or where a model's weights are; exit with 1 if they are not here."""
    at = here(context)
    if what is None:
        typer.echo(at.folder.path)
        return
    names = at.folder.names(what, at.catalogue)
    listed = next((entry for entry in at.catalogue.models if entry.id == what), None)
    name = listed.weights.name if listed is not None else names[0]
    if name not in at.folder.present():
        raise ModelError(f"{what}: is not complete; `rouse model add {what}` goes on with it")
    typer.echo(at.folder.path / name)
