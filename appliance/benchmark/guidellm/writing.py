"""Writes a report of ours in GuideLLM's shape, for the tools that read that.

GuideLLM's report says more than was measured here: what was not is zero or null, and a rate whose course over time is
not known has its mean at every percentile.
"""

import platform
import uuid
from collections.abc import Callable, Sequence

from appliance.benchmark.client import UNFINISHED
from appliance.benchmark.guidellm.distribution import STATUSES, Json, constant, distribution
from appliance.benchmark.guidellm.reading import TOOL_LABEL
from appliance.benchmark.report import Level, Report, Request

GUIDELLM_VERSION = "0.8.1"
"""The version whose schema this follows."""
NAMESPACE = uuid.UUID("6a6ab0f6-2d5b-4b68-9d2f-0f0c5f3f5d3e")

type Value = Callable[[Request], float | None]
type ByStatus = dict[str, list[Request]]


def to_guidellm(report: Report) -> Json:
    """Return GuideLLM's `GenerativeBenchmarksReport` as JSON."""
    return {
        "metadata": {
            "version": 2,
            "guidellm_version": GUIDELLM_VERSION,
            "python_version": platform.python_version(),
            "platform": report.machine,
        },
        "config": {
            "metadata": {"labels": {TOOL_LABEL: report.tool}},
            "spec": {
                "backend": _backend(report),
                "profile": {
                    "kind": "concurrent",
                    "streams": [max(level.concurrency, 1) for level in report.levels] or [1],
                },
                "data": [
                    {"kind": "synthetic_text", "prompt_tokens": _prompt(report), "output_tokens": _answer(report)}
                ],
                "outputs": [{"kind": "json"}],
            },
            "benchmarks": [None],
        },
        "benchmarks": [_benchmark(report, number, level) for number, level in enumerate(report.levels)],
        "conclusions": [],
    }


def _backend(report: Report) -> Json:
    return {"kind": "openai_http", "target": report.target, "model": report.model or ""}


def _prompt(report: Report) -> int:
    return max([1, *(level.prompt_tokens or 1 for level in report.levels)])


def _answer(report: Report) -> int:
    return max(1, report.answer_tokens or 1)


def _benchmark(report: Report, number: int, level: Level) -> Json:
    by_status = _by_status(level)
    totals = {name: len(requests) for name, requests in by_status.items()}
    end = level.began + level.seconds
    streams = max(level.concurrency, 1)
    run = uuid.uuid5(NAMESPACE, f"{report.target} {level.began}")
    return {
        "type_": "generative_benchmark",
        "config": {
            "id_": str(uuid.uuid5(run, str(number))),
            "run_id": str(run),
            "run_index": number,
            "strategy": {"type_": "concurrent", "worker_count": 1, "max_concurrency": streams, "streams": streams},
            "constraints": {},
            "profile": {"kind": "concurrent", "streams": [streams]},
            "requests": {},
            "backend": _backend(report),
            "environment": {},
        },
        "scheduler_state": {
            "num_processes": 1,
            "start_time": level.began,
            "end_time": end,
            "created_requests": totals["total"],
            "processed_requests": totals["total"],
            "successful_requests": totals["successful"],
            "errored_requests": totals["errored"],
            "cancelled_requests": totals["incomplete"],
        },
        "scheduler_metrics": {
            "start_time": level.began,
            "request_start_time": level.began,
            "measure_start_time": level.began,
            "measure_end_time": end,
            "request_end_time": end,
            "end_time": end,
            "requests_made": totals,
            **dict.fromkeys(UNKNOWN_DELAYS, 0.0),
            "request_time_avg": _mean([one.ended - one.started for one in by_status["successful"]]),
        },
        "metrics": _metrics(level, by_status, totals),
        "requests": {
            **{
                name: [_request(level, one, status) for one in by_status[name]]
                for name, status in (("successful", "completed"), ("incomplete", "cancelled"), ("errored", "errored"))
            },
            "total": None,
        },
    }


UNKNOWN_DELAYS = (
    "queued_time_avg",
    "resolve_start_delay_avg",
    "resolve_targeted_start_delay_avg",
    "request_start_delay_avg",
    "request_targeted_start_delay_avg",
    "resolve_end_delay_avg",
    "resolve_time_avg",
    "finalized_delay_avg",
    "processed_delay_avg",
)


def _metrics(level: Level, by_status: ByStatus, totals: dict[str, int]) -> Json:
    def of(value: Value, weight: Value | None = None) -> Json:
        return {name: _distribution(requests, value, weight) for name, requests in by_status.items()}

    def rate(value: Value) -> Json:
        return {
            name: constant(sum(value(one) or 0.0 for one in requests) / (level.seconds or 1.0), len(requests))
            for name, requests in by_status.items()
        }

    tokens, prompt = _tokens, _prompt_tokens
    one_each: Value = lambda _request: 1.0  # noqa: E731  # as the other values
    text = {
        "input": of(prompt),
        "input_per_second": rate(prompt),
        "input_concurrency": rate(_nothing),
        "output": of(tokens),
        "output_per_second": rate(tokens),
        "output_concurrency": rate(_nothing),
        "total": of(_all_tokens),
        "total_per_second": rate(_all_tokens),
        "total_concurrency": rate(_nothing),
    }
    return {
        "request_totals": totals,
        "requests_per_second": rate(one_each),
        "request_concurrency": rate(_latency),
        "request_latency": of(_latency),
        "request_streaming_iterations_count": of(lambda one: float(one.chunks)),
        "prompt_token_count": of(prompt),
        "output_token_count": of(tokens),
        "total_token_count": of(_all_tokens),
        "time_to_first_token_ms": of(_first_token_ms),
        "time_to_first_output_token_ms": of(_first_token_ms),
        "time_per_output_token_ms": of(_per_token_ms, tokens),
        "inter_token_latency_ms": of(_inter_token_ms, lambda one: one.tokens - 1.0),
        "time_to_last_round_trip_ms": of(_nothing),
        "avg_round_trip_time_ms": of(_nothing),
        "prompt_tokens_per_second": rate(prompt),
        "output_tokens_per_second": {
            **rate(tokens),
            "total": constant(level.tokens_per_second, totals["total"]),
        },
        "tokens_per_second": rate(_all_tokens),
        "output_tokens_per_iteration": of(_per_chunk),
        "iter_tokens_per_iteration": of(_per_chunk),
        "text": {"tokens": text, "words": None, "characters": None},
        "image": dict.fromkeys(("tokens", "images", "pixels", "bytes")),
        "video": dict.fromkeys(("tokens", "frames", "seconds", "bytes")),
        "audio": dict.fromkeys(("tokens", "samples", "seconds", "bytes")),
        "tool_call": dict.fromkeys(("tokens", "mixed_tokens", "count")),
    }


def _by_status(level: Level) -> ByStatus:
    found: ByStatus = {name: [] for name in STATUSES}
    for request in level.requests:
        name = "successful" if request.error is None else "incomplete" if request.error == UNFINISHED else "errored"
        found[name].append(request)
        found["total"].append(request)
    return found


def _distribution(requests: Sequence[Request], value: Value, weight: Value | None) -> Json:
    counted = [
        (found, (weight(one) or 0.0) if weight else 1.0) for one in requests if (found := value(one)) is not None
    ]
    return distribution([found for found, _ in counted], [max(count, 0.0) for _, count in counted])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _nothing(_request: Request) -> None:
    return None


def _latency(request: Request) -> float:
    return request.ended - request.started


def _tokens(request: Request) -> float:
    return float(request.tokens)


def _prompt_tokens(request: Request) -> float | None:
    return None if request.prompt_tokens is None else float(request.prompt_tokens)


def _all_tokens(request: Request) -> float:
    return float(request.tokens + (request.prompt_tokens or 0))


def _first_token_ms(request: Request) -> float | None:
    return None if request.first_token is None else (request.first_token - request.started) * 1e3


def _per_token_ms(request: Request) -> float | None:
    if request.last_token is None or not request.tokens:
        return None
    return (request.last_token - request.started) * 1e3 / request.tokens


def _inter_token_ms(request: Request) -> float | None:
    if request.first_token is None or request.last_token is None or request.tokens < 2:
        return None
    return (request.last_token - request.first_token) * 1e3 / (request.tokens - 1)


def _per_chunk(request: Request) -> float | None:
    return request.tokens / request.chunks if request.chunks else None


def _request(level: Level, request: Request, status: str) -> Json:
    name = str(uuid.uuid5(NAMESPACE, f"{level.began} {level.concurrency} {request.started}"))

    def at(seconds: float | None) -> float | None:
        return None if seconds is None else level.began + seconds

    first, last, started, ended = map(at, (request.first_token, request.last_token, request.started, request.ended))
    return {
        "type_": "generative_request_stats",
        "request_id": name,
        "info": {
            "request_id": name,
            "status": status,
            "scheduler_start_time": level.began,
            "error": None if status != "errored" else request.error,
            "timings": {
                "queued": started,
                "dequeued": started,
                "scheduled_at": started,
                "resolve_start": started,
                "request_start": started,
                "first_request_iteration": first,
                "first_token_iteration": first,
                "first_output_token_iteration": first,
                "last_token_iteration": last,
                "last_request_iteration": last,
                "request_iterations": request.chunks,
                "token_iterations": request.chunks,
                "request_end": ended,
                "resolve_end": ended,
                "finalized": ended,
            },
        },
        "input_metrics": {"text_tokens": request.prompt_tokens, "cached_tokens": request.cached_tokens},
        "output_metrics": {"text_tokens": request.tokens},
    }
