"""Reads what the table shows from a report of GuideLLM's."""

from typing import Any, Literal

from pydantic import AliasPath, BaseModel, ConfigDict, Field

from appliance.benchmark.report import LONGEST_TEXT, Level, Report
from appliance.benchmark.summary import Summary

MOST_BENCHMARKS = 10_000
TOOL_LABEL = "tool"
"""Under which our own writer leaves what measured."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class _Percentiles(_Part):
    p001: float
    p01: float
    p05: float
    p10: float
    p25: float
    p50: float
    p75: float
    p90: float
    p95: float
    p99: float
    p999: float


class _Distribution(_Part):
    mean: float
    std_dev: float
    min: float
    max: float
    count: int
    total_sum: float
    percentiles: _Percentiles

    def summary(self, factor: float = 1.0) -> Summary | None:
        """Return it in our shape, its values multiplied; None if it is of nothing."""
        if not self.count:
            return None
        points = {name: value * factor for name, value in self.percentiles.model_dump().items()}
        return Summary(
            count=self.count,
            mean=self.mean * factor,
            deviation=self.std_dev * factor,
            minimum=self.min * factor,
            maximum=self.max * factor,
            **points,
        )


class _ByStatus(_Part):
    successful: _Distribution | None = None
    total: _Distribution | None = None

    def summary(self, factor: float = 1.0) -> Summary | None:
        """Return the summary of the successful requests."""
        return self.successful.summary(factor) if self.successful else None

    @property
    def all(self) -> _Distribution | None:
        """Of all requests."""
        return self.total or self.successful


class _Totals(_Part):
    successful: int = Field(ge=0)
    incomplete: int = Field(ge=0)
    errored: int = Field(ge=0)


class _Metrics(_Part):
    request_totals: _Totals
    requests_per_second: _ByStatus
    request_concurrency: _ByStatus
    request_latency: _ByStatus
    prompt_token_count: _ByStatus
    output_token_count: _ByStatus
    time_to_first_token_ms: _ByStatus
    inter_token_latency_ms: _ByStatus
    output_tokens_per_second: _ByStatus


class _Benchmark(_Part):
    streams: int | None = Field(default=None, ge=0, validation_alias=AliasPath("config", "strategy", "streams"))
    began: float = Field(validation_alias=AliasPath("scheduler_metrics", "measure_start_time"))
    ended: float = Field(validation_alias=AliasPath("scheduler_metrics", "measure_end_time"))
    metrics: _Metrics

    def level(self) -> Level:
        """Return it in our shape."""
        metrics, totals = self.metrics, self.metrics.request_totals
        running, prompt = metrics.request_concurrency.all, metrics.prompt_token_count.all
        output, rate = metrics.output_token_count.all, metrics.output_tokens_per_second.all
        finished = metrics.requests_per_second.successful
        return Level(
            concurrency=self.streams if self.streams is not None else round(running.mean if running else 0),
            prompt_tokens=round(prompt.percentiles.p50) if prompt else None,
            began=self.began,
            seconds=max(self.ended - self.began, 0.0),
            completed=totals.successful,
            unfinished=totals.incomplete,
            errors={"errored": totals.errored} if totals.errored else {},
            tokens=output.total_sum if output else 0.0,
            tokens_per_second=rate.mean if rate else 0.0,
            requests_per_second=finished.mean if finished else 0.0,
            counted_by="server",
            first_token_ms=metrics.time_to_first_token_ms.summary(),
            inter_token_ms=metrics.inter_token_latency_ms.summary(),
            gap_ms=None,
            latency_ms=metrics.request_latency.summary(1e3),
        )


class _Metadata(_Part):
    version: Literal[2]
    guidellm_version: str = Field(default="", max_length=LONGEST_TEXT)
    platform: str = Field(default="", max_length=LONGEST_TEXT)


class _GuideLLMReport(_Part):
    metadata: _Metadata
    written_by: str | None = Field(default=None, validation_alias=AliasPath("config", "metadata", "labels", TOOL_LABEL))
    target: str = Field(default="", validation_alias=AliasPath("config", "spec", "backend", "target"))
    model: str | None = Field(default=None, validation_alias=AliasPath("config", "spec", "backend", "model"))
    benchmarks: list[_Benchmark] = Field(max_length=MOST_BENCHMARKS)


def is_guidellm(document: Any) -> bool:
    """Whether a JSON document looks like a report of GuideLLM's."""
    return isinstance(document, dict) and "benchmarks" in document and "metadata" in document


def from_guidellm(document: Any) -> Report:
    """Return GuideLLM's report in our shape, without its single requests.

    Raises:
        pydantic.ValidationError: it is not of that shape.
    """
    report = _GuideLLMReport.model_validate(document)
    return Report(
        target=report.target[:LONGEST_TEXT],
        model=(report.model or None) and str(report.model)[:LONGEST_TEXT],
        answer_tokens=None,
        machine=report.metadata.platform,
        tool=(report.written_by or f"GuideLLM {report.metadata.guidellm_version}")[:LONGEST_TEXT],
        levels=tuple(benchmark.level() for benchmark in report.benchmarks),
    )
