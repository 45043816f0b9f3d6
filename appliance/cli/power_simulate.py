"""`rouse power simulate`: what a sleep policy saves, and how long requests wait for it."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from appliance import durable_files
from appliance.cli.command_line import CommandError, command_line
from appliance.power.demand import THRESHOLD
from appliance.power.simulate.contenders import for_chart, standard
from appliance.power.simulate.errors import SimulationError
from appliance.power.simulate.fleet import sample, simulate
from appliance.power.simulate.households import MIX, PROFILES
from appliance.power.simulate.picture import chart
from appliance.power.simulate.recording import Recording, read_recording
from appliance.power.simulate.report import Point, Report, outcome, point, total_node_hours
from appliance.power.simulate.scenario import MOST_DAYS, MOST_NODES, Scenario, period
from appliance.power.simulate.table import shown
from appliance.power.zone import house_zone
from appliance.settings.power import PowerSettings
from appliance.settings.waking import WakeSettings
from appliance.settings.weekly import parse_all

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it: 128 and the number of SIGINT."""
FIRST_DAY = (2026, 1, 5)
"""Invented demand begins on this Monday, so that a seed gives the same numbers on every day."""
WARM_UP_DAYS = 28
_PIPE_WIDTH = 180

app = typer.Typer()


@app.command("simulate")
def simulate_policies(
    context: typer.Context,
    *,
    nodes: Annotated[
        int | None,
        typer.Option(min=1, max=MOST_NODES, help="Machines; 100, or as many as the recording has experts."),
    ] = None,
    days: Annotated[
        int | None, typer.Option(min=1, max=MOST_DAYS, help="Days that count; 7, or all of a recording that are left.")
    ] = None,
    warm_up: Annotated[
        int | None,
        typer.Option(
            "--warm-up", min=0, max=MOST_DAYS, help="Days before, in which the forecast only learns; 28, or half."
        ),
    ] = None,
    demand: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Recorded requests: CSV (time,expert) or JSON lines."),
    ] = None,
    profile: Annotated[
        str, typer.Option(help=f"Households of invented demand: mixed, {', '.join(PROFILES)}.")
    ] = "mixed",
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of everything random.")] = 1,
    idle_after: Annotated[
        float | None, typer.Option(min=1, max=86_400, help="Seconds without use; power.idle_after by default.")
    ] = None,
    awake: Annotated[
        list[str] | None,
        typer.Option(help="Hours of the schedule, such as 'weekdays 06:30-08:30'; power.awake by default."),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0.01, max=1, help="Chance from which the forecast wakes a machine; wake.forecast_threshold by default."
        ),
    ] = None,
    processes: Annotated[
        int | None, typer.Option(min=1, max=256, help="Processes; as many as there are processors by default.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(file_okay=False, help="Folder for simulation.json and simulation.svg.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON, for scripts.")] = False,
) -> None:
    """Compare sleep policies on recorded or invented demand: energy against added latency.

    The machine is the one of the settings (section power): its watts and schedule, how long it takes to sleep and wake.
    With --output, a chart is drawn as well, of more policies on a part of the fleet.
    """
    if profile not in {"mixed", *PROFILES}:
        raise typer.BadParameter(f"expected mixed, {', '.join(PROFILES)}", param_hint="--profile")
    settings = command_line(context).load().settings
    power = _machine(settings.power, idle_after, awake)
    try:
        scenario = _scenario(
            power,
            zone=settings.system.time_zone,
            nodes=nodes,
            days=days,
            warm_up=warm_up,
            demand=demand,
            profile=profile,
            seed=seed,
            threshold=threshold or _usual_threshold(settings.wake),
            ahead=settings.wake.forecast_ahead,
        )
        report = _run(scenario, power, demand, processes=processes or os.cpu_count() or 1, draw=output is not None)
    except SimulationError as error:
        raise CommandError(str(error)) from error
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        typer.echo(json.dumps(report.model_dump(mode="json"), indent=1))
    else:
        Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH).print(shown(report))
    if output is not None:
        _write(report, output)


def _machine(power: PowerSettings, idle_after: float | None, awake: list[str] | None) -> PowerSettings:
    if awake:
        try:
            parse_all(awake)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--awake") from error
        power = power.model_copy(update={"awake": tuple(awake)})
    return power if idle_after is None else power.model_copy(update={"idle_after": idle_after})


def _scenario(
    power: PowerSettings,
    *,
    zone: str | None,
    nodes: int | None,
    days: int | None,
    warm_up: int | None,
    demand: Path | None,
    profile: str,
    seed: int,
    threshold: float,
    ahead: float,
) -> Scenario:
    recording: Recording | None = None
    if demand is None:
        first_day = datetime(*FIRST_DAY, tzinfo=house_zone(zone))
        warm_up_days, counted = (WARM_UP_DAYS if warm_up is None else warm_up), days or 7
    else:
        recording = read_recording(demand)
        first_day, warm_up_days, counted = _recorded_days(recording, demand, zone, days=days, warm_up=warm_up)
    first, start, end = period(first_day, warm_up_days, counted)
    return Scenario(
        nodes=nodes or (100 if recording is None else len(recording)),
        first=first,
        start=start,
        end=end,
        zone=zone,
        seed=seed,
        contenders=standard(power, threshold),
        profile=profile,
        recording=recording,
        ahead=ahead,
    )


def _usual_threshold(wake: WakeSettings) -> float:
    """Return the hub's threshold; where it wakes nobody by a forecast, what that would be worth is of interest."""
    return wake.forecast_threshold if 0 < wake.forecast_threshold < 1 else THRESHOLD


def _recorded_days(
    recording: Recording, path: Path, zone: str | None, *, days: int | None, warm_up: int | None
) -> tuple[datetime, int, int]:
    """Return the first day of a recording, and how many days are for learning and how many count."""
    first = min(float(one.times[0]) for one in recording)
    last = max(float(one.times[-1]) for one in recording)
    there = house_zone(zone)
    first_day, last_day = datetime.fromtimestamp(first, there), datetime.fromtimestamp(last, there)
    length = (last_day.date() - first_day.date()).days + 1
    if length > MOST_DAYS:
        raise SimulationError(f"{path}: lasts {length:,} days, from {first_day:%Y-%m-%d}; at most {MOST_DAYS:,} can be")
    learned = min(WARM_UP_DAYS, length // 14 * 7) if warm_up is None else warm_up
    counted = length - learned if days is None else days
    if counted < 1 or learned + counted > length:
        raise SimulationError(
            f"{path}: lasts {length:,} days, too few for {learned} of learning and {max(counted, 1)} that count; "
            "set --warm-up and --days"
        )
    return first_day + timedelta(days=length - learned - counted), learned, counted


def _run(scenario: Scenario, power: PowerSettings, demand: Path | None, *, processes: int, draw: bool) -> Report:
    started = time.monotonic()
    points = for_chart(power) if draw else ()
    few = sample(scenario, tuple(contender for *_, contender in points))
    with _progress(scenario.nodes + (few.nodes if draw else 0)) as done:
        tallies = simulate(scenario, processes=processes, done=done)
        seconds = max(time.monotonic() - started, 1e-9)
        tried = simulate(few, processes=processes, done=done) if draw else []
    drawn: list[Point] = [
        point(series, setting, contender, tally, few)
        for (series, setting, contender), tally in zip(points, tried, strict=True)
    ]
    if demand is not None:
        said = f"recorded in {demand.name}"
    else:
        households = f"{len(MIX)} kinds of households" if scenario.profile == "mixed" else scenario.profile
        said = f"invented for {households}"
    return Report(
        nodes=scenario.nodes,
        days=round((scenario.end - scenario.start) / 86_400),
        warm_up_days=round((scenario.start - scenario.first) / 86_400),
        seed=scenario.seed,
        demand=said,
        zone=scenario.zone or "local",
        seconds=seconds,
        node_hours_per_second=total_node_hours(scenario) / seconds,
        watts={
            "idle": power.idle_watts,
            "busy": power.busy_watts,
            "asleep": power.asleep_watts,
            "off": power.off_watts,
        },
        outcomes=tuple(
            outcome(contender, tally, scenario) for contender, tally in zip(scenario.contenders, tallies, strict=True)
        ),
        sample_nodes=few.nodes if draw else 0,
        points=tuple(drawn),
    )


@contextmanager
def _progress(nodes: int) -> Iterator[Callable[[int], None]]:
    columns = (BarColumn(30), MofNCompleteColumn(), TextColumn("nodes"), TimeElapsedColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=nodes)
        yield lambda finished: progress.advance(task, finished)


def _write(report: Report, folder: Path) -> None:
    files = {"simulation.json": json.dumps(report.model_dump(mode="json"), indent=1) + "\n"}
    files["simulation.svg"] = chart(report)
    try:
        for name, text in files.items():
            durable_files.write(folder / name, text.encode(), mode=0o644)
    except OSError as error:
        raise CommandError(f"the report can't be written to {folder}: {error.strerror}") from error
    typer.echo(f"Written: {', '.join(str(folder / name) for name in files)}", err=True)
