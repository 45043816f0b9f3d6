"""Log probabilities in OpenAI's two shapes.

They are of the model's own distribution: before bias, penalties, grammar, temperature and the other samplers.
"""

from collections.abc import Sequence

from appliance.experts.events import TokenLogprob
from appliance.experts.http.wire import Json


def chat_logprobs(tokens: Sequence[TokenLogprob]) -> Json:
    """Return a chat choice's `logprobs`."""
    content = [
        {
            **_entry(token.token, token.logprob),
            "top_logprobs": [_entry(other, logprob) for other, logprob in token.top],
        }
        for token in tokens
    ]
    return {"content": content, "refusal": None}


def completion_logprobs(tokens: Sequence[TokenLogprob]) -> Json:
    """Return a completion choice's `logprobs`; offsets count characters from the answer's beginning."""
    return {
        "tokens": [_text(token.token) for token in tokens],
        "token_logprobs": [_rounded(token.logprob) for token in tokens],
        "top_logprobs": [
            {_text(other): _rounded(logprob) for other, logprob in (*token.top, (token.token, token.logprob))}
            for token in tokens
        ],
        "text_offset": [token.offset for token in tokens],
    }


def _entry(token: bytes, logprob: float) -> Json:
    return {"token": _text(token), "logprob": _rounded(logprob), "bytes": list(token)}


def _text(token: bytes) -> str:
    return token.decode(errors="replace")


def _rounded(logprob: float) -> float:
    """Return a number that JSON has; an impossible token's logarithm is minus infinity."""
    return max(round(logprob, 6), -9999.0)
