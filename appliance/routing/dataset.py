"""The data set: who answered what how well, one JSON object per line, as LLMRouter reads and writes it.

The format is that of llmrouter-lib 0.4.0 (https://github.com/ulab-uiuc/LLMRouter, llmrouter/data/README.md, "Routing
Data JSONL"): a line per query and model. Ours adds `cost` and, under names that LLMRouter ignores, `language`,
`instructions` and `held_out`; it asks for `query`, `model_name` and `performance` alone, and keeps the rest.
"""

import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from appliance.routing.errors import DataSetError

LONGEST_LINE = 1024 * 1024
MOST_LINES = 1_000_000

_Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Count = Annotated[int, Field(ge=0)]


class Query(BaseModel):
    """A question with what a good answer is."""

    model_config = ConfigDict(frozen=True, extra="allow")

    task_name: str = "unknown"
    """The domain, or the benchmark."""
    query: str
    ground_truth: str = ""
    metric: str = "exact"
    choices: str | None = None
    task_id: str | None = None
    """`domain/task/template#number` for seed prompts; what is before `#` is never both trained on and held out."""
    language: str | None = None
    instructions: str = ""
    """System's message that the expert got with it."""
    held_out: bool = False

    @field_validator("ground_truth", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        """LLMRouter's tasks hold numbers and lists here, too."""
        return value if isinstance(value, str) else json.dumps(value)

    @property
    def template(self) -> str:
        """What it was made from; itself for one that stands alone."""
        return self.task_id.partition("#")[0] if self.task_id else f"{self.task_name}: {self.query}"


class Answer(Query):
    """One model's answer to a query, and what it was worth."""

    model_name: Annotated[str, Field(min_length=1, max_length=256)]
    response: str = ""
    token_num: _Count = 0
    input_tokens: _Count = 0
    output_tokens: _Count = 0
    response_time: _Amount = 0.0
    """Seconds."""
    performance: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
    cost: _Amount | None = None
    """Seconds of a machine's work, or money: whatever is the same for all models; None: the response time."""
    embedding_id: _Count = 0
    api_key_used: str = ""
    user_id: str | None = None
    fig_id: str | None = None

    @field_validator("performance", mode="before")
    @classmethod
    def _whole(cls, value: Any) -> Any:
        return float(value) if isinstance(value, bool) else value

    @property
    def price(self) -> float:
        """What it cost."""
        return self.response_time if self.cost is None else self.cost


def read(file: Path, *, drop_broken_end: bool = False) -> list[Answer]:
    """Read a data set.

    Args:
        file: JSON lines.
        drop_broken_end: pass over a last line that was not written to its end.

    Raises:
        DataSetError: the file can't be read, or a line can't be used.
    """
    answers = []
    for number, line, ended in _lines(file):
        if not line.strip():
            continue
        try:
            answers.append(Answer.model_validate(json.loads(line, parse_constant=_refuse, parse_float=_finite)))
        except (ValueError, RecursionError) as error:
            if drop_broken_end and not ended:
                break
            raise DataSetError(f"{file}:{number}: {_told(error)}; mend or remove the line") from None
    return answers


def line_of(answer: Answer) -> str:
    """Return an answer's line, with its end; escaped if a text of it holds half a character."""
    document = answer.model_dump()
    line = json.dumps(document, ensure_ascii=False) + "\n"
    try:
        line.encode()
    except UnicodeEncodeError:
        return json.dumps(document) + "\n"
    return line


def numbered(answers: Iterable[Answer]) -> list[Answer]:
    """Give the answers to one query one `embedding_id`, counted from 0 in the order of the queries."""
    ids: dict[tuple[str, str, str, str], int] = {}
    return [
        answer.model_copy(
            update={
                "embedding_id": ids.setdefault(
                    (answer.task_name, answer.query, answer.ground_truth, answer.metric), len(ids)
                )
            }
        )
        for answer in answers
    ]


def write(file: Path, answers: Iterable[Answer]) -> None:
    """Write a data set whole or not at all.

    Raises:
        DataSetError: the file can't be written.
    """
    draft = file.with_name(f".{file.name}.draft")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text("".join(line_of(answer) for answer in answers), encoding="utf-8")
        draft.replace(file)
    except OSError as error:
        raise DataSetError(f"{file}: can't be written: {error}") from error


def merge(file: Path, runs: Iterable[Path]) -> int:
    """Take answers of other files into a data set, and return how many are new or rated otherwise.

    Of two answers of one expert to one query the later one counts; what the data set held gives way.

    Raises:
        DataSetError: a file can't be read, used or written.
    """
    there = read(file, drop_broken_end=True) if file.exists() else []
    by_key = {_key(answer): answer for answer in there}
    known = {key: (answer.response, answer.performance, answer.cost) for key, answer in by_key.items()}
    for run in runs:
        by_key |= {_key(answer): answer for answer in read(run)}
    taken = sum(known.get(key) != (found.response, found.performance, found.cost) for key, found in by_key.items())
    if taken:
        write(file, numbered(by_key.values()))
    return taken


def _key(answer: Answer) -> tuple[str, ...]:
    return answer.task_name, answer.query, answer.ground_truth, answer.metric, answer.model_name


def _lines(file: Path) -> Iterator[tuple[int, str, bool]]:
    """Yield number, text and whether it ends."""
    try:
        with file.open("rb") as stream:
            for number in range(1, MOST_LINES + 1):
                line = stream.readline(LONGEST_LINE + 1)
                if not line:
                    return
                if len(line) > LONGEST_LINE:
                    raise DataSetError(f"{file}:{number}: is longer than {LONGEST_LINE} bytes; shorten or remove it")
                yield number, line.decode("utf-8", "replace"), line.endswith(b"\n")
    except OSError as error:
        raise DataSetError(f"{file}: can't be read: {error}") from None
    raise DataSetError(f"{file}: holds more than {MOST_LINES} lines; split it")


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _finite(number: str) -> float:
    value = float(number)
    if math.isinf(value):
        raise ValueError(f"{number} is too large")
    return value


def _told(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc'])) or 'the line'}: {first['msg']}"
    return str(error)
