"""Has every expert answer every query, and appends what each answer was worth to a data set.

A run that was cut off goes on where it stopped: whole lines that are there are not asked again.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from appliance.routing import dataset
from appliance.routing.completion import Source, complete
from appliance.routing.dataset import Answer, Query
from appliance.routing.errors import DataSetError, GenerationError
from appliance.routing.scoring import VERDICT_GRAMMAR, check, judge_messages, quality_of, score

MOST_REASONS = 5
"""Different ones that are told of one expert."""
_ROOM = 64
"""Bytes for the number that a query gets at the end."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a run may take."""

    max_tokens: int = 256
    concurrency: int = 4
    """Requests to one expert at a time."""
    timeout: float = 300.0
    """Seconds for one answer."""
    failures: int = 5
    """Failed answers in a row after which an expert is given up."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run did."""

    asked: int
    there: int
    """Answers that the data set held before."""
    unjudged: int
    """Queries left out because only a judge can score them."""
    failed: dict[str, str]
    """By expert that was given up: its last error."""
    skipped: dict[str, dict[str, int]]
    """By expert whose answers are missing: how many, by reason."""


async def generate(
    *,
    queries: Sequence[Query],
    experts: Sequence[Source],
    file: Path,
    limits: Limits,
    judge: Source | None = None,
    on_answer: Callable[[Answer], None] = lambda _: None,
) -> Summary:
    """Ask for what is missing in the data set.

    Raises:
        DataSetError: the data set can't be read or written.
    """
    checkable = [query for query in queries if judge is not None or query.metric != "judge"]
    for query in checkable:
        try:
            check(query)
        except DataSetError as error:
            raise DataSetError(f"the query {query.query[:80]!r} can't be used: {error}") from None
    there = _there(file)
    known = {(answer.task_name, answer.query, answer.model_name) for answer in there}
    run = _Run(file, limits, judge, on_answer)
    timeout = aiohttp.ClientTimeout(total=limits.timeout)
    connector = aiohttp.TCPConnector(limit=limits.concurrency * (len(experts) + 1), force_close=True)
    left: dict[str, asyncio.Queue[Query]] = {}
    broken: Exception | None = None
    try:
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session, asyncio.TaskGroup() as group:
            for expert in experts:
                missing = [query for query in checkable if (query.task_name, query.query, expert.name) not in known]
                waiting = left[expert.name] = asyncio.Queue()
                for query in missing:
                    waiting.put_nowait(query)
                for _ in range(min(limits.concurrency, len(missing))):
                    group.create_task(run.work(session, expert, waiting), name=f"ask {expert.name}")
    except* DataSetError as errors:
        broken = errors.exceptions[0]
    if broken is not None:
        raise broken
    _there(file)
    for name, waiting in left.items():
        if not waiting.empty():
            run.skipped.setdefault(name, Counter())["not asked any more"] += waiting.qsize()
    skipped = {name: dict(reasons.most_common()) for name, reasons in run.skipped.items()}
    return Summary(run.asked, len(there), len(queries) - len(checkable), run.failed, skipped)


def _there(file: Path) -> list[Answer]:
    """Return what the data set holds, its queries counted and without a last line that was cut off."""
    if not file.exists():
        return []
    there = dataset.numbered(dataset.read(file, drop_broken_end=True))
    dataset.write(file, there)
    return there


class _Run:
    def __init__(self, file: Path, limits: Limits, judge: Source | None, on_answer: Callable[[Answer], None]) -> None:
        self._file = file
        self._limits = limits
        self._judge = judge
        self._on_answer = on_answer
        self._in_a_row: Counter[str] = Counter()
        self.failed: dict[str, str] = {}
        self.skipped: dict[str, Counter[str]] = {}
        self.asked = 0

    async def work(self, session: aiohttp.ClientSession, expert: Source, waiting: asyncio.Queue[Query]) -> None:
        while expert.name not in self.failed and not waiting.empty():
            query = waiting.get_nowait()
            try:
                answer = await self._answer(session, expert, query)
                line = _line(answer)
            except GenerationError as error:
                self._skip(expert.name, str(error))
                self._in_a_row[expert.name] += 1
                if self._in_a_row[expert.name] >= self._limits.failures:
                    self.failed[expert.name] = str(error)
                continue
            self._in_a_row[expert.name] = 0
            self._append(line)
            self._on_answer(answer)

    def _skip(self, name: str, reason: str) -> None:
        reasons = self.skipped.setdefault(name, Counter())
        reasons[reason if reason in reasons or len(reasons) < MOST_REASONS else "other reasons"] += 1

    async def _answer(self, session: aiohttp.ClientSession, expert: Source, query: Query) -> Answer:
        messages = [{"role": "user", "content": query.query}]
        if query.instructions:
            messages.insert(0, {"role": "system", "content": query.instructions})
        started = time.perf_counter()
        said = await complete(session, expert, messages, max_tokens=self._limits.max_tokens)
        took = time.perf_counter() - started
        quality = score(query.metric, query.ground_truth, said.text)
        if quality is None and self._judge is not None:
            asked = judge_messages(query.query, query.ground_truth, said.text)
            verdict = await complete(session, self._judge, asked, max_tokens=1, grammar=VERDICT_GRAMMAR)
            quality = quality_of(verdict.text)
            if quality is None:
                raise GenerationError(f"the judge {self._judge.name} gave no verdict from 1 to 5: {verdict.text!r}")
        return Answer(
            **query.model_dump(),
            model_name=expert.name,
            response=said.text,
            token_num=said.input_tokens + said.output_tokens,
            input_tokens=said.input_tokens,
            output_tokens=said.output_tokens,
            response_time=round(took, 4),
            performance=quality or 0.0,
            cost=round(took, 4),
        )

    def _append(self, line: str) -> None:
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("a", encoding="utf-8") as stream:
                stream.write(line)
        except OSError as error:
            raise DataSetError(f"{self._file}: can't be written: {error}") from error
        self.asked += 1


def _line(answer: Answer) -> str:
    line = dataset.line_of(answer)
    size = len(line.encode())
    if size > dataset.LONGEST_LINE - _ROOM:
        raise GenerationError(f"{answer.model_name} gave an answer too long for a line of the data set: {size} bytes")
    return line
