"""What `rouse model` prints: tables for people, JSON for scripts."""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from appliance.models.advice import Advice
from appliance.models.catalogue import Catalogue, Model
from appliance.models.folder import ModelFolder, Present

_PIPE_WIDTH = 200
_COMMERCIAL = {"yes": "", "conditions": " (conditions)", "no": " (not commercial)"}


def size_text(size: int | None, *, exact: bool = True) -> str:
    """Return a size for people; one that is not exact begins with a tilde."""
    if size is None:
        return "?"
    text = f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
    return text if exact else f"~{text}"


def print_table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """Print a table: to the terminal's width, or wide when piped."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        right = column.startswith("»")
        table.add_column(column.removeprefix("»"), justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, markup=False, highlight=False).print(table)


def print_json(value: Any) -> None:
    """Print JSON."""
    typer.echo(json.dumps(value, indent=2, default=str, sort_keys=False))


def total_size(model: Model) -> tuple[int | None, bool]:
    """Return the size of all files of a model, and whether it is exact."""
    sizes = [file.estimated_size for file in model.files]
    if None in sizes:
        return None, False
    return sum(size or 0 for size in sizes), all(file.size is not None for file in model.files)


def state_of(model: Model, present: Mapping[str, Present], parts: Mapping[str, int]) -> str:
    """Return whether a model is here: here, begun, or nothing."""
    if all(file.name in present for file in model.files):
        return "here"
    return "begun" if any(file.name in present or file.name in parts for file in model.files) else ""


def list_row(model: Model, state: str, catalogue: Catalogue) -> tuple[str, ...]:
    """Return the row of `list`."""
    size, exact = total_size(model)
    licence = catalogue.licences[model.licence]
    return (
        model.id,
        state,
        model.machine,
        size_text(size, exact=exact),
        str(model.context),
        ", ".join(sorted(model.purposes)),
        licence.name + _COMMERCIAL[licence.commercial],
    )


def as_json(model: Model, catalogue: Catalogue, folder: ModelFolder) -> dict[str, Any]:
    """Return all that is known of a model, and what of it is here."""
    present, parts = folder.present(), folder.parts()
    document = model.model_dump(mode="json")
    document["purposes"] = sorted(model.purposes)
    document["unconfirmed"] = sorted(model.unconfirmed)
    document["licence"] = catalogue.licences[model.licence].model_dump(mode="json")
    document["kv_bytes_per_token"] = model.architecture.kv_bytes_per_token if model.architecture else None
    document["state"] = state_of(model, present, parts) or "absent"
    document["here"] = {file.name: record_json(present[file.name]) for file in model.files if file.name in present}
    return document


def flat(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Return a document's leaves, each with its dotted path."""
    items: Iterable[tuple[str, Any]]
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        items = ((str(index), item) for index, item in enumerate(value, start=1))
    else:
        if value not in (None, "", []):
            yield path, ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        return
    for key, item in items:
        yield from flat(item, f"{path}.{key}" if path else str(key))


def record_json(present: Present) -> dict[str, Any]:
    """Return what is known of a file that is here."""
    record = present.record.model_dump(mode="json") if present.record else None
    return {"path": str(present.path), "size": present.size, "record": record}


def advice_row(advice: Advice) -> tuple[str, ...]:
    """Return the row of `advise`."""
    need = size_text(advice.need, exact=advice.complete)
    return (
        advice.model.id,
        advice.fit,
        need,
        "?" if advice.decode is None else _speed(advice.decode),
        _speed(advice.prefill),
        ", ".join(sorted(advice.model.purposes)),
    )


def advice_json(advice: Advice) -> dict[str, Any]:
    """Return the advice for scripts."""
    return {
        "id": advice.model.id,
        "fit": advice.fit,
        "memory_bytes": advice.need,
        "memory_has_context": advice.complete,
        "decode_tokens_per_second": advice.decode,
        "prefill_tokens_per_second": advice.prefill,
        "purposes": sorted(advice.model.purposes),
    }


def _speed(tokens: float) -> str:
    return f"{tokens:.0f}" if tokens >= 10 else f"{tokens:.1f}"


@dataclass(slots=True)
class ProgressLine:
    """How a download or a verification goes, on standard error."""

    total: int | None
    done: int = 0
    said: int = -1
    bar: Progress | None = None

    def set(self, done: int, total: int | None) -> None:
        """Say how much is done, and of how much."""
        self.done, self.total = done, total or self.total
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], completed=self.done, total=self.total)
            return
        tenth = 10 * self.done // self.total if self.total else self.done >> 28
        if tenth != self.said:
            self.said = tenth
            of = f" of {size_text(self.total)}" if self.total else ""
            typer.echo(f"{size_text(self.done)}{of}", err=True)

    def advance(self, count: int) -> None:
        """Say that so much more is done."""
        self.set(self.done + count, self.total)

    def note(self, text: str) -> None:
        """Say something on a line of its own."""
        if self.bar is not None:
            self.bar.console.print(text, markup=False, highlight=False)
        else:
            typer.echo(text, err=True)


@contextmanager
def progress_line(what: str, total: int | None) -> Iterator[ProgressLine]:
    """Show progress: a bar on a terminal, else a line for each tenth."""
    if not sys.stderr.isatty():
        yield ProgressLine(total)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        bar.add_task(what, total=total)
        yield ProgressLine(total, bar=bar)
