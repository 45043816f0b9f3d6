"""`rouse tune`: shows what the self-benchmark found on this machine, or runs it."""

import json
import logging
import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from appliance.cli.command_line import CommandError, command_line
from appliance.experts.errors import ModelLoadError
from appliance.experts.server import SPIN_COUNT
from appliance.experts.settings import EngineSettings
from appliance.experts.tuning.costs import CostModel
from appliance.experts.tuning.store import Subject, TuningStore
from appliance.node.serving import TUNING, engine_settings
from appliance.settings.model import Settings

app = typer.Typer()


@app.command("tune")
def tune_experts(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="Name of an expert in the settings; all when left out.")] = None,
    *,
    show: Annotated[bool, typer.Option("--show", help="Only show what is known.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON instead of a table.")] = False,
) -> None:
    """Measure how fast this machine runs its experts, and with how many threads; remember it."""
    logging.basicConfig(level=logging.ERROR, format="%(message)s")  # a doubtful result is said in the table
    settings = command_line(context).load().settings
    if name is not None and name not in settings.experts:
        known = ", ".join(settings.experts) or "none"
        raise CommandError(f"there is no expert {name!r} in the settings (there are: {known})")
    # The other commands do without llama.cpp, and its threads read this when it is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    names = [name] if name is not None else [*settings.experts]
    try:
        found = [_known(each, settings) if show else _measured(each, settings) for each in names]
    except (ModelLoadError, OSError) as error:
        raise CommandError(str(error)) from error
    if as_json:
        typer.echo(json.dumps(found, indent=1))
    else:
        _print(found)


def _known(name: str, settings: Settings) -> dict[str, Any]:
    model, engine, store = _parts(name, settings)
    from appliance.experts.tuning.tune import describe  # noqa: PLC0415  # llama.cpp

    subject = describe(model, engine)
    known = store.load(subject)
    if known is None:
        return {"expert": name, "threads": None, "note": "not measured yet"}
    return _row(name, subject, known.threads, known.costs, note=f"measured {known.measured:%Y-%m-%d %H:%M} UTC")


def _measured(name: str, settings: Settings) -> dict[str, Any]:
    model, engine, store = _parts(name, settings)
    if settings.experts[name].workers:
        return {"expert": name, "threads": None, "note": "not measured: it computes on its workers"}
    from appliance.experts.llama.backend import LlamaBackend  # noqa: PLC0415  # llama.cpp
    from appliance.experts.tuning.tune import tune  # noqa: PLC0415  # llama.cpp

    backend = LlamaBackend(model, engine)
    try:
        tuned = tune(backend, model=model, settings=engine, store=store, anew=True)
    finally:
        backend.close()
    note = f"doubtful, not kept: {tuned.doubt}" if tuned.doubt else f"measured in {tuned.measured_seconds:.1f} s"
    return _row(name, tuned.subject, tuned.threads, tuned.costs, note=note)


def _parts(name: str, settings: Settings) -> tuple[Path, EngineSettings, TuningStore]:
    expert = settings.experts[name]
    return (
        settings.paths.models / expert.model,
        engine_settings(name, settings),
        TuningStore(settings.paths.state / TUNING),
    )


def _row(name: str, subject: Subject, threads: int, costs: CostModel, *, note: str) -> dict[str, Any]:
    return {
        "expert": name,
        "threads": threads,
        "decode_ms": {cost.tokens: round(cost.milliseconds, 2) for cost in costs.decode},
        "prefill_ms": {cost.tokens: round(cost.milliseconds, 2) for cost in costs.prefill},
        "prefill_chunk": {
            running: costs.prefill_chunk(running, limit=subject.batch_tokens) for running in (1, subject.slots)
        },
        "subject": subject.model_dump(),
        "note": note,
    }


def _print(found: list[dict[str, Any]]) -> None:
    table = Table("expert", "threads", "tokens/s, 1 sequence", "tokens/s, all slots", "prefill tokens/s", "note")
    for row in found:
        if row["threads"] is None:
            table.add_row(row["expert"], "", "", "", "", row["note"])
            continue
        decode, prefill = row["decode_ms"], row["prefill_ms"]
        speeds = (1000 / decode[1], *(max(costs) * 1000 / costs[max(costs)] for costs in (decode, prefill)))
        table.add_row(row["expert"], str(row["threads"]), *(f"{speed:.0f}" for speed in speeds), row["note"])
    Console().print(table)
