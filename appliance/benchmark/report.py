"""The report of a load test; `report.json` is this model as JSON. Durations are in milliseconds unless said."""

from collections import Counter
from collections.abc import Sequence
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from appliance.benchmark.client import UNFINISHED, Outcome
from appliance.benchmark.summary import Summary

type CountedBy = Literal["server", "client", "mixed"]

type Window = tuple[float, float]

LONGEST_TEXT = 500


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Request(_Model):
    """One request; times in seconds since the level began."""

    started: float
    first_token: float | None
    last_token: float | None
    ended: float
    prompt_tokens: int | None
    cached_tokens: int | None
    tokens: int
    chunks: int
    error: str | None = Field(max_length=LONGEST_TEXT)


class Level(_Model):
    """A number of clients that ask one after another, for a while."""

    concurrency: int = Field(ge=0)
    prompt_tokens: int | None
    """As asked for; what the server counted is in `requests`."""
    began: float
    """Seconds since 1970."""
    seconds: float = Field(ge=0)
    """Length of the measurement."""
    completed: int = Field(ge=0)
    unfinished: int = Field(ge=0)
    """Requests that still ran when the measurement ended."""
    errors: dict[str, int]
    """Failed requests by kind."""
    error_details: dict[str, str] = {}
    """What one of each kind said."""
    tokens: float = Field(ge=0)
    """Tokens that arrived within the measurement, those of unfinished and failed requests too."""
    tokens_per_second: float = Field(ge=0)
    requests_per_second: float = Field(ge=0)
    counted_by: CountedBy
    """Who counted the tokens: the server, or the client, one for each chunk of text."""
    first_token_ms: Summary | None
    inter_token_ms: Summary | None
    """Of each request: from its first token to its last, by the tokens between."""
    gap_ms: Summary | None
    """Between one arrival of text and the next, of all requests: its tail is what a listener notices."""
    latency_ms: Summary | None
    """Of whole requests."""
    requests: tuple[Request, ...] = ()

    @property
    def failed(self) -> int:
        """Failed requests."""
        return sum(self.errors.values())

    @classmethod
    def of(
        cls, outcomes: Sequence[Outcome], *, concurrency: int, prompt_tokens: int | None, began: float, window: Window
    ) -> Self:
        """Return what became of a level's requests.

        Args:
            outcomes: of all requests, unfinished ones too.
            concurrency: number of clients.
            prompt_tokens: as asked for.
            began: seconds since 1970.
            window: start and end of the measurement, on the outcomes' clock.
        """
        start, end = window
        done = [one for one in outcomes if one.error is None]
        failed = [one for one in outcomes if one.error not in {None, UNFINISHED}]
        seconds = max(end - start, 1e-9)
        tokens = sum(_tokens_within(one, end) for one in outcomes)
        counted = {one.completion_tokens is not None for one in done}
        return cls(
            concurrency=concurrency,
            prompt_tokens=prompt_tokens,
            began=began,
            seconds=seconds,
            completed=len(done),
            unfinished=len(outcomes) - len(done) - len(failed),
            errors=dict(Counter(str(one.error) for one in failed)),
            error_details={str(one.error): one.detail[:LONGEST_TEXT] for one in failed},
            tokens=tokens,
            tokens_per_second=tokens / seconds,
            requests_per_second=len(done) / seconds,
            counted_by="mixed" if len(counted) > 1 else "server" if counted == {True} else "client",
            first_token_ms=Summary.of([one.first_token * 1e3 for one in done if one.first_token is not None]),
            inter_token_ms=Summary.of([pace for one in done if (pace := inter_token_ms(one)) is not None]),
            gap_ms=Summary.of([gap * 1e3 for one in done for gap in one.gaps]),
            latency_ms=Summary.of([(one.ended - one.started) * 1e3 for one in done]),
            requests=tuple(_request(one, start) for one in outcomes),
        )


class Report(_Model):
    """A whole load test."""

    kind: Literal["rouse-benchmark"] = "rouse-benchmark"
    version: Literal[1] = 1
    target: str = Field(max_length=2000)
    model: str | None = Field(max_length=LONGEST_TEXT)
    answer_tokens: int | None
    interrupted: bool = False
    """Whether it was ended before all levels were measured."""
    machine: str = Field(default="", max_length=LONGEST_TEXT)
    """On which the client ran."""
    tool: str = Field(max_length=LONGEST_TEXT)
    """What measured, and its version."""
    levels: tuple[Level, ...]


def inter_token_ms(outcome: Outcome) -> float | None:
    """Return the time from the first token to the last by the tokens between; None without two arrivals."""
    if len(outcome.arrivals) < 2 or outcome.tokens < 2:
        return None
    # What came together with the first token was there at that time.
    between = outcome.tokens - min(outcome.arrivals[0][1], outcome.tokens - 1)
    return (outcome.arrivals[-1][0] - outcome.arrivals[0][0]) * 1e3 / between


def _tokens_within(outcome: Outcome, end: float) -> float:
    """Return the tokens that came until then; an event of a server that counts may be more than one."""
    events = sum(count for at, count in outcome.arrivals if at <= end)
    return events * outcome.tokens / outcome.events if outcome.events else 0.0


def _request(outcome: Outcome, start: float) -> Request:
    return Request(
        started=outcome.started - start,
        first_token=outcome.arrivals[0][0] - start if outcome.arrivals else None,
        last_token=outcome.arrivals[-1][0] - start if outcome.arrivals else None,
        ended=outcome.ended - start,
        prompt_tokens=outcome.prompt_tokens,
        cached_tokens=outcome.cached_tokens,
        tokens=outcome.tokens,
        chunks=outcome.events,
        error=outcome.error,
    )
