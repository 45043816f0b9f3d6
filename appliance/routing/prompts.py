"""Seed prompts: YAML templates per domain, multiplied into checkable queries; the same seed gives the same queries.

A task has queries by language; each is a template of its own. `$name` stands for a value: one of a list, a whole
number of a range (`{from: 2, to: 99}`), or of a list of mappings the entry of the query's language, whose other
entries are `$name_key`. `compute` is arithmetic over the numbers; the answer names what it gives `$result`.
"""

import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from string import Template
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from appliance.routing.arithmetic import compute
from appliance.routing.dataset import Query
from appliance.routing.errors import SeedsError
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


class SeedFile(_Strict):
    """One file of seed prompts."""

    domain: Domain
    instructions: str = ""
    """Sent to the expert as the system's message; the router never sees it."""
    tasks: list[_Task]


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
        SeedsError: a template names a value that is not there.
    """
    found: dict[tuple[str, str], Query] = {}
    for file in seeds:
        for task in file.tasks:
            for language, number, text in _templates(task):
                name = f"{file.domain}/{task.id}/{language}{number}"
                # A source of its own, so that a further template leaves the others' queries as they are.
                source = random.Random(f"{seed} {name}")  # noqa: S311 - repeatable, not secret
                drawn: dict[str, Query] = {}
                for _ in range(per_template * TRIES):
                    if len(drawn) == per_template:
                        break
                    query = _draw(file, task, (language, name, text), source)
                    drawn.setdefault(query.query, query)
                for position, query in enumerate(drawn.values()):
                    found.setdefault(
                        (query.task_name, query.query), query.model_copy(update={"task_id": f"{name}#{position}"})
                    )
    return list(found.values())


def _templates(task: _Task) -> Iterator[tuple[str, int, str]]:
    for language, texts in task.queries.items():
        for number, text in enumerate(texts):
            yield language, number, text


def _draw(file: SeedFile, task: _Task, template: tuple[str, str, str], source: random.Random) -> Query:
    """Draw a query of a template: its language, name and text."""
    language, name, text = template
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
        query, answer = Template(text).substitute(words), Template(task.answer).substitute(answer_words)
    except KeyError as error:
        raise SeedsError(f"{name}: there is no value {error}; name it under `values`") from None
    except ValueError as error:
        raise SeedsError(f"{name}: {error}") from None
    return Query(
        task_name=file.domain,
        query=query,
        ground_truth=answer,
        metric=task.metric,
        task_id=name,
        language=language,
        instructions=file.instructions if task.instructions is None else task.instructions,
        held_out=task.held_out,
    )


def _words(key: str, drawn: Any, language: str) -> dict[str, str]:
    if not isinstance(drawn, dict):
        return {key: str(drawn)}
    return {key: str(drawn[language])} | {f"{key}_{part}": str(word) for part, word in drawn.items()}


def _read(file: Path) -> SeedFile:
    try:
        if file.stat().st_size > LARGEST:
            raise SeedsError(f"{file}: is larger than {LARGEST} bytes")
        return SeedFile.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        raise SeedsError(f"{file}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise SeedsError(f"{file}: can't be read: {error}") from None
