"""How many tokens a response cost, and how long it took."""

from collections.abc import Sequence
from dataclasses import asdict

from appliance.experts.events import Timings
from appliance.experts.http.wire import Json


def usage(timings: Sequence[Timings], per_prompt: int = 1) -> Json:
    """Return OpenAI's `usage`; each prompt counts once, however many answers it has.

    The answers to one prompt stand together in `timings`.
    """
    prompts = timings[::per_prompt]
    prompt = sum(part.cache_n + part.prompt_n for part in prompts)
    completion = sum(part.predicted_n for part in timings)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": sum(part.cache_n for part in prompts)},
    }


def timings_json(timings: Sequence[Timings]) -> Json:
    """Return llama-server's `timings`, durations in milliseconds; of several answers, sums and the longest."""
    parts = [asdict(part) for part in timings]
    return {key: round((max if key.endswith("_ms") else sum)(part[key] for part in parts), 3) for key in parts[0]}
