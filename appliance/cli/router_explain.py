"""`rouse router explain`: which expert would be asked, and why."""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from appliance.cli.command_line import CommandError, command_line
from appliance.cli.router_context import Json, console, data_file, table_from, translated, versions_of
from appliance.cli.router_tables import choice_table, expectations, nearest_table
from appliance.routing.domains import find_domain
from appliance.routing.errors import RoutingError
from appliance.routing.files import load, read_manifest
from appliance.routing.live import LiveRouter
from appliance.routing.model import TrainedRouter
from appliance.routing.nearest import Near, nearest
from appliance.routing.rules import rules_of
from appliance.routing.table import fingerprint
from appliance.settings.model import Settings

NEAREST = 5


def explain(
    context: typer.Context,
    text: Annotated[str, typer.Argument(help="What a user says.")],
    *,
    expert: Annotated[
        list[str] | None, typer.Option(help="An able expert; all that the router knows when none is given.")
    ] = None,
    version: Annotated[str | None, typer.Option(help="Ask this version, not the one at work.")] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(help="Data sets with what was learnt; the state folder's router/data.jsonl when none is given."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show which expert would be asked, and why."""
    settings = command_line(context).load().settings
    versions = versions_of(settings)
    trained: TrainedRouter | None = None
    found: list[Near] = []
    with translated():
        name = version or versions.current()
        rules = rules_of(settings)
        if version is not None:
            trained = load(versions.path(version))
            able = expert or list(trained.experts)
            unknown = trained.unknown(able)
            if unknown:
                raise CommandError(f"version {version} does not know {', '.join(unknown)}: train again")
            started = time.perf_counter()
            decision = trained.choose(text, able)
        else:
            live = LiveRouter(folder=versions.folder, rules=rules)
            live.start()
            manifest = versions.manifest(name) if name else None
            known = manifest.experts if manifest is not None and not isinstance(manifest, RoutingError) else ()
            able = expert or sorted({*known, *settings.experts})
            started = time.perf_counter()
            decision = live.choose(text, able)
        milliseconds = 1000 * (time.perf_counter() - started)
        if name is not None and decision.router == name:
            trained = trained or load(versions.path(name))
            found = _nearest(trained, text, versions.path(name), data, settings)
    if as_json:
        document = {
            "experts": decision.experts,
            "router": decision.router,
            "reason": decision.reason,
            "scores": decision.scores,
            "expected": {
                name: {"quality": quality, "cost": cost}
                for name, (quality, cost) in (expectations(trained, text) if trained is not None else {}).items()
            },
            "nearest": [asdict(near) for near in found],
            "domain": find_domain(text).domain,
            "milliseconds": round(milliseconds, 3),
        }
        typer.echo(json.dumps(document, indent=1))
        return
    typer.echo(f"{', '.join(decision.experts) or 'no preference'} ({decision.router}, {milliseconds:.2f} ms)")
    typer.echo(decision.reason)
    if trained is None:
        return
    console().print(choice_table(trained, text, decision.scores))
    if found:
        console().print(nearest_table(found))
    else:
        typer.echo("The nearest learnt queries are not shown: the data set with them is not there (--data FILE).")


def _nearest(router: TrainedRouter, text: str, folder: Path, data: list[Path] | None, settings: Settings) -> list[Near]:
    """Return the nearest queries that a version learned from; none when their data set is gone."""
    prints = read_manifest(folder).about.get("templates")
    if not isinstance(prints, list) or (data is None and not data_file(settings).exists()):
        return []
    table = table_from(data, settings)
    learned = np.array(
        [row for row, query in enumerate(table.queries) if fingerprint(query.template) in prints], np.int64
    )
    return nearest(router, text, table=table, learned=learned, count=NEAREST) if len(learned) else []
