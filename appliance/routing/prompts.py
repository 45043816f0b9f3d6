"""Seed prompts: YAML templates per domain, multiplied into checkable queries; the same seed gives the same queries.

A task has queries by language; each is a template of its own. `$name` stands for a value: one of a list, a whole
number of a range (`{from: 2, to: 99}`), or of a list of mappings the entry of the query's language, whose other
entries are `$name_key`. `compute` is arithmetic over the numbers; the answer names what it gives `$result`.
"""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from appliance.routing.arithmetic import compute
from appliance.routing.dataset import Query
from appliance.routing.errors import DataSetError, SeedsError
from appliance.routing.scoring import check
from appliance.settings.model import Domain

SHIPPED = Path(__file__).parent / "seeds"
LARGEST = 1024 * 1024
TRIES = 20
"""Draws for one further query before a template counts as used up."""

type Metric = Literal["exact", "number", "regex", "json", "tool_call", "judge"]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Range(_Strict):
    lowest: Annotated[int, Field(alias="from")]
    highest: Annotated[int, Field(alias="to")]


_Scalar = str | int | float
_Id = Annotated[str, Field(pattern="^[a-z0-9][a-z0-9-]{0,40}$")]
_Word = Annotated[str, Field(pattern="^[a-z][a-z0-9]{0,20}$")]


class _Task(_Strict):
    id: _Id
    metric: Metric
    answer: str
    instructions: str | None = None
    compute: str | None = None
    held_out: bool = False
    """Whether no query of it is ever trained on."""
    values: dict[_Word, _Range | Annotated[list[_Scalar | dict[str, _Scalar]], Field(min_length=1)]] = Field(
        default_factory=dict
    )
    queries: dict[_Word, Annotated[list[str], Field(min_length=1)]]


class _Content(_Strict):
    domain: Domain
    instructions: str = ""
    """Sent to the expert as the system's message; the router never sees it."""
    tasks: list[_Task]


@dataclass(frozen=True, slots=True)
class SeedFile:
    """One file of seed prompts."""

    path: Path
    content: _Content
    lines: tuple[int, ...]
    """Where each task begins."""


@dataclass(frozen=True, slots=True)
class _Template:
    name: str
    where: str
    """File and line of its task."""
    content: _Content
    task: _Task
    language: str
    text: str


def read_seeds(folder: Path = SHIPPED) -> list[SeedFile]:
    """Read all `*.yaml` of a folder.

    Raises:
        SeedsError: a file can't be read or used, or there is none.
    """
    files = sorted(folder.glob("*.yaml"))
    if not files:
        raise SeedsError(f"{folder}: holds no .yaml file with seed prompts")
    return [_read(file) for file in files]


def queries_of(seeds: Sequence[SeedFile], *, per_template: int, seed: int) -> list[Query]:
    """Draw up to so many different queries from each template.

    Raises:
        SeedsError: a template names a value that is not there, or answers to it can't be scored.
    """
    found: dict[tuple[str, str], Query] = {}
    for file in seeds:
        for template in _templates(file):
            # A source of its own, so that a further template leaves the others' queries as they are.
            source = random.Random(f"{seed} {template.name}")  # noqa: S311 - repeatable, not secret
            drawn: dict[str, Query] = {}
            for _ in range(per_template * TRIES):
                if len(drawn) == per_template:
                    break
                query = _draw(template, source)
                drawn.setdefault(query.query, query)
            for position, query in enumerate(drawn.values()):
                named = query.model_copy(update={"task_id": f"{template.name}#{position}"})
                found.setdefault((query.task_name, query.query), named)
    return list(found.values())


def _templates(file: SeedFile) -> Iterator[_Template]:
    for line, task in zip(file.lines, file.content.tasks, strict=True):
        for language, texts in task.queries.items():
            for number, text in enumerate(texts):
                name = f"{file.content.domain}/{task.id}/{language}{number}"
                yield _Template(name, f"{file.path}:{line}", file.content, task, language, text)


def _draw(template: _Template, source: random.Random) -> Query:
    task, language = template.task, template.language
    words: dict[str, str] = {}
    numbers: dict[str, int] = {}
    try:
        for key, choice in task.values.items():
            drawn = (
                source.randint(choice.lowest, choice.highest) if isinstance(choice, _Range) else source.choice(choice)
            )
            words |= _words(key, drawn, language)
            number = drawn.get("value") if isinstance(drawn, dict) else drawn
            if isinstance(number, int):
                numbers[key] = number
        if task.compute is not None:
            words["result"] = compute(task.compute, numbers)
        answer_words = {key: re.escape(word) for key, word in words.items()} if task.metric == "regex" else words
        text, answer = Template(template.text).substitute(words), Template(task.answer).substitute(answer_words)
    except KeyError as error:
        raise _wrong(template, f"there is no value {error}; name it under `values`") from None
    except (ValueError, OverflowError) as error:
        raise _wrong(template, str(error)) from None
    query = Query(
        task_name=template.content.domain,
        query=text,
        ground_truth=answer,
        metric=task.metric,
        task_id=template.name,
        language=language,
        instructions=template.content.instructions if task.instructions is None else task.instructions,
        held_out=task.held_out,
    )
    try:
        check(query)
    except DataSetError as error:
        raise _wrong(template, str(error)) from None
    return query


def _wrong(template: _Template, what: str) -> SeedsError:
    return SeedsError(f"{template.where}: {template.name}: {what}")


def _words(key: str, drawn: Any, language: str) -> dict[str, str]:
    if not isinstance(drawn, dict):
        return {key: str(drawn)}
    return {key: str(drawn[language])} | {f"{key}_{part}": str(word) for part, word in drawn.items()}


def _read(file: Path) -> SeedFile:
    lines: tuple[int, ...] = ()
    try:
        if file.stat().st_size > LARGEST:
            raise SeedsError(f"{file}: is larger than {LARGEST} bytes")
        text = file.read_text(encoding="utf-8")
        lines = _task_lines(yaml.compose(text, Loader=yaml.SafeLoader))
        return SeedFile(file, _Content.model_validate(yaml.safe_load(text)), lines)
    except ValidationError as error:
        first = error.errors()[0]
        place = first["loc"]
        line = f":{lines[place[1]]}" if len(place) > 1 and isinstance(place[1], int) and place[0] == "tasks" else ""
        raise SeedsError(f"{file}{line}: {'.'.join(map(str, place))}: {first['msg']}") from None
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise SeedsError(f"{file}: can't be read: {' '.join(str(error).split())}") from None


def _task_lines(document: yaml.Node | None) -> tuple[int, ...]:
    """Return where the tasks begin, counted from 1."""
    entries = document.value if isinstance(document, yaml.MappingNode) else []
    # Of a key that is there twice, YAML's last one counts.
    found = [value for key, value in entries if key.value == "tasks" and isinstance(value, yaml.SequenceNode)][-1:]
    return tuple(task.start_mark.line + 1 for node in found for task in node.value)
