"""`rouse bench`: measure an expert, the gateway or any other server of OpenAI's API under load."""

import asyncio
import json
import os
import platform
import secrets
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from appliance import __version__
from appliance.benchmark.client import Outcome, Target, session
from appliance.benchmark.errors import BenchmarkError
from appliance.benchmark.files import read_report, write_report
from appliance.benchmark.load import LoadTest, Plan, check_some_succeeded
from appliance.benchmark.report import Report
from appliance.benchmark.table import shown
from appliance.cli.command_line import CommandError, command_line
from appliance.security.layout import secret_file

app = typer.Typer(invoke_without_command=True, help="Measure a server under load.")

KEY_VARIABLE = "ROUSE_API_KEY"
INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it: 128 and the number of SIGINT."""
_PIPE_WIDTH = 160


def _numbers(text: str, name: str, most: int) -> tuple[int, ...]:
    """Parse `1,4,8`.

    Raises:
        typer.BadParameter: it is something else.
    """
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or not all(1 <= number <= most for number in numbers):
        raise typer.BadParameter(
            f"{text!r} is not a list of numbers from 1 to {most:,}, such as 1,4,8.", param_hint=name
        )
    return tuple(dict.fromkeys(numbers))


@app.callback()
def bench(
    context: typer.Context,
    *,
    url: Annotated[
        str | None, typer.Option(help="Base URL of what is measured; this machine's gateway by default.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model that is asked for; the server's own by default.")] = None,
    concurrency: Annotated[str, typer.Option(help="Clients at once, one level after another.")] = "1,4,8",
    prompt_tokens: Annotated[str, typer.Option(help="Lengths of the prompts, roughly, in tokens.")] = "32",
    tokens: Annotated[int, typer.Option(min=1, max=1 << 20, help="Length of the answers.")] = 64,
    duration: Annotated[
        float | None, typer.Option(min=0.1, max=86_400, help="Seconds for each level; 15 unless --requests is given.")
    ] = None,
    requests: Annotated[int | None, typer.Option(min=1, help="Requests of each level.")] = None,
    warm_up: Annotated[int, typer.Option(min=0, max=1000, help="Requests first that do not count.")] = 2,
    timeout: Annotated[float, typer.Option(min=0.1, max=86_400, help="Seconds that an answer may take.")] = 300,
    api_key_file: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help=f"File that holds the API key; {KEY_VARIABLE} otherwise."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(file_okay=False, help="Folder for report.json, report.guidellm.json, report.svg.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON, for scripts.")] = False,
) -> None:
    """Measure throughput and latencies of an expert, the gateway or any server of OpenAI's API under load."""
    if context.invoked_subcommand is not None:
        return
    plan = Plan(
        concurrency=_numbers(concurrency, "--concurrency", 10_000),
        prompt_tokens=_numbers(prompt_tokens, "--prompt-tokens", 1 << 20),
        answer_tokens=tokens,
        duration=duration if duration or requests else 15.0,
        requests=requests,
        warm_up=warm_up,
        seed=secrets.randbelow(10**6),
    )
    target = _target(context, url, api_key_file, model, timeout)
    try:
        report = asyncio.run(_measure(target, plan))
        _show(report, as_json=as_json)
        if output is not None:
            written = write_report(report, output)
            typer.echo(f"Written: {', '.join(map(str, written))}", err=True)
        if report.interrupted:
            raise typer.Exit(INTERRUPTED)
        check_some_succeeded(list(report.levels))
    except BenchmarkError as error:
        raise CommandError(str(error)) from error


@app.command()
def show(
    file: Annotated[Path, typer.Argument(help="A report.json of `rouse bench`, or GuideLLM's benchmarks.json.")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report in our shape as JSON.")] = False,
) -> None:
    """Show a report of ours or of GuideLLM's."""
    try:
        _show(read_report(file), as_json=as_json)
    except BenchmarkError as error:
        raise CommandError(str(error)) from error


def _target(
    context: typer.Context, url: str | None, key_file: Path | None, model: str | None, timeout: float
) -> Target:
    """Return what is measured; without a URL the gateway of the settings, with its key."""
    key = os.environ.get(KEY_VARIABLE)
    if url is None:
        settings = command_line(context).load().settings
        host = settings.gateway.host if settings.gateway.host not in {"0.0.0.0", "::"} else "127.0.0.1"  # noqa: S104
        url = f"http://{f'[{host}]' if ':' in host else host}:{settings.gateway.port}/v1"
        key_file = key_file or (None if key else secret_file(settings.paths.state, "gateway.key"))
    elif not url.startswith(("http://", "https://")):
        raise typer.BadParameter(f"{url!r} must start with http:// or https://.", param_hint="--url")
    if key_file is not None:
        try:
            key = key_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise CommandError(f"the API key can't be read from {key_file}: {error}") from error
    if key and not key.isprintable():
        raise CommandError("the API key has line breaks or other characters that no key has")
    return Target(url, key or None, model, timeout)


async def _measure(target: Target, plan: Plan) -> Report:
    """Run the plan until it is done or SIGINT comes."""
    with _progress(plan) as progress:
        async with session() as http:
            test = LoadTest(http, target, plan, on_level=progress.level, on_answer=progress.answer)
            work = asyncio.ensure_future(test.run())
            asyncio.get_running_loop().add_signal_handler(signal.SIGINT, work.cancel)
            try:
                await work
            except asyncio.CancelledError:
                interrupted = True
            else:
                interrupted = False
    return Report(
        target=target.url,
        model=target.model,
        answer_tokens=plan.answer_tokens,
        interrupted=interrupted,
        machine=platform.platform(),
        tool=f"rouse {__version__}",
        levels=tuple(test.levels),
    )


class _Shown:
    """What runs at the moment, as a line on standard error."""

    def __init__(self, progress: Progress, plan: Plan) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=len(plan.levels) + 1, detail="")
        self._answers = self._failed = 0

    def level(self, clients: int, length: int) -> None:
        self._answers = self._failed = 0
        text = f"{clients} clients, {length:,}-token prompts"
        self._progress.update(self._task, advance=1, description=text, detail="")

    def answer(self, outcome: Outcome) -> None:
        self._answers += 1
        self._failed += outcome.error is not None
        failed = f", {self._failed} failed" if self._failed else ""
        self._progress.update(self._task, detail=f"{self._answers} answers{failed}")


@contextmanager
def _progress(plan: Plan) -> Iterator[_Shown]:
    columns = (
        BarColumn(20),
        TextColumn("{task.description}"),
        TextColumn("{task.fields[detail]}"),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True)
    # Twice a second: what is drawn takes its time from the server that is measured.
    with Progress(
        *columns, console=console, transient=True, refresh_per_second=2, disable=not console.is_terminal
    ) as progress:
        yield _Shown(progress, plan)


def _show(report: Report, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(report.model_dump(mode="json"), indent=1))
        return
    Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH).print(shown(report), markup=False)
