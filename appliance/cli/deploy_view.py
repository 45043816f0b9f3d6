"""Shows a deploy while it runs."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.syntax import Syntax
from rich.text import Text

from appliance.cli.deploy_result import DeployResult

if TYPE_CHECKING:
    from pyinfra_deploys.events import Event, OperationDone

_PIPE_WIDTH = 120
_MARKS = {"changed": "+", "would change": "~", "failed": "!", "unchanged": " "}
_STYLES = {"changed": "yellow", "would change": "yellow", "failed": "bold red", "unchanged": "dim"}


class DeployView:
    """One bar for each machine on a terminal, and a line for each change.

    Args:
        verbose: show what stays as it is, too, and how files differ.
        dry: nothing is changed; show how files differ.
        quiet: show nothing.
    """

    def __init__(self, *, verbose: bool, dry: bool, quiet: bool) -> None:
        self.console = Console(stderr=True, width=None if sys.stderr.isatty() else _PIPE_WIDTH)
        self._verbose = verbose
        self._dry = dry
        self._quiet = quiet
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.0f}/{task.total:.0f} parts"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[now]}", style="dim"),
            console=self.console,
            disable=quiet or not self.console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._parts: dict[str, list[str]] = {}

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the bars as long as the deploy runs."""
        with self._progress:
            yield

    def take(self, event: "Event") -> None:
        """Show an event."""
        if self._quiet:
            return
        if event.kind == "connected":
            self._tasks[event.machine] = self._progress.add_task(
                event.machine, total=len(event.parts), now="" if event.error is None else "not reached"
            )
            self._parts[event.machine] = list(event.parts)
        elif event.kind == "part":
            done = self._parts[event.machine].index(event.part)
            self._progress.update(self._tasks[event.machine], completed=done, now=event.part)
        elif event.kind == "operation":
            self._progress.update(self._tasks[event.machine], now=f"{event.part}: {event.title}"[:60])
            self._line(event)
        elif event.kind == "ended":
            for machine, task in self._tasks.items():
                if event.succeeded:
                    self._progress.update(task, completed=len(self._parts[machine]), now="")
        elif event.kind == "note" and self._verbose:
            self._print(Text(event.text, style="dim"))

    def _line(self, event: "OperationDone") -> None:
        if event.outcome == "unchanged" and not self._verbose:
            return
        mark = f"{_MARKS[event.outcome]} {event.machine}: {event.part}: {event.title}"
        self._print(Text(mark, style=_STYLES[event.outcome]))
        if event.diff and (self._dry or self._verbose):
            self._print(Syntax(event.diff.rstrip("\n"), "diff", background_color="default", word_wrap=True))

    def _print(self, what: Text | Syntax) -> None:
        self.console.print(what, markup=False, highlight=False, soft_wrap=True)

    def print_summary(self, result: DeployResult) -> None:
        """Show what became of all."""
        if self._quiet:
            return
        console = Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH)
        console.print(result.table(dry=self._dry))
        for note in result.notes:
            self._print(Text(f"note: {note}", style="cyan"))
