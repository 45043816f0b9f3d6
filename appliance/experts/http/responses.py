"""Bodies of responses, in OpenAI's shapes.

What a stream repeats in every chunk is serialised once; a chunk of text costs one JSON string.
"""

import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal

from appliance.experts.events import Event, Failed, Finished, TextDelta, Timings, ToolCall

type Json = dict[str, Any]

DONE = b"data: [DONE]\n\n"

_encode = json.encoder.encode_basestring_ascii


def usage(timings: Timings) -> Json:
    """Return OpenAI's `usage`, in tokens."""
    prompt = timings.cache_n + timings.prompt_n
    return {
        "prompt_tokens": prompt,
        "completion_tokens": timings.predicted_n,
        "total_tokens": prompt + timings.predicted_n,
        "prompt_tokens_details": {"cached_tokens": timings.cache_n},
    }


def timings_json(timings: Timings) -> Json:
    """Return llama-server's `timings`, durations in milliseconds."""
    return {key: round(value, 3) for key, value in asdict(timings).items()}


def error_json(message: str, *, kind: str, param: str | None = None, code: str | None = None) -> Json:
    """Return OpenAI's error body."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def sse(data: Json) -> bytes:
    """Return a server-sent event."""
    return b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n"


class ChatResponses:
    """Builds the responses to one chat request."""

    object: Literal["chat.completion", "text_completion"] = "chat.completion"
    chunk_object = "chat.completion.chunk"
    id_prefix = "chatcmpl-"

    def __init__(self, model: str) -> None:
        self._id = self.id_prefix + secrets.token_hex(12)
        self._created = int(time.time())
        self._model = model
        self._started = False
        head = (
            f'data: {{"id":"{self._id}","object":"{self.chunk_object}","created":{self._created},'
            f'"model":{_encode(model)},"choices":[{{"index":0,'
        )
        self._text_head = head + self.text_head

    text_head = '"delta":{"content":'
    text_tail = '},"finish_reason":null}]}\n\n'

    def chunks(self, events: Sequence[Event], *, include_usage: bool) -> bytes:
        """Return the events as server-sent events; the last of them ends the stream."""
        parts: list[bytes] = []
        if not self._started:
            self._started = True
            parts += self.opening()
        for event in events:
            match event:
                case TextDelta(text):
                    parts.append(f"{self._text_head}{_encode(text)}{self.text_tail}".encode())
                case ToolCall():
                    parts.append(self._chunk([self.choice({"tool_calls": [_tool_call(event, delta=True)]}, None)]))
                case Finished(reason, timings):
                    extra: Json = {"timings": timings_json(timings)}
                    parts.append(self._chunk([self.choice({}, reason)], **extra))
                    if include_usage:
                        parts.append(self._chunk([], usage=usage(timings)))
                    parts.append(DONE)
                case Failed():
                    raise event.error
        return b"".join(parts)

    def whole(self, events: Sequence[Event], finished: Finished) -> Json:
        """Return the response of a request that did not stream."""
        text = "".join(event.text for event in events if isinstance(event, TextDelta))
        calls = [_tool_call(event, delta=False) for event in events if isinstance(event, ToolCall)]
        return {
            "id": self._id,
            "object": self.object,
            "created": self._created,
            "model": self._model,
            "choices": [self.whole_choice(text, calls, finished.reason)],
            "usage": usage(finished.timings),
            "timings": timings_json(finished.timings),
        }

    def opening(self) -> list[bytes]:
        """Return what a stream starts with."""
        return [self._chunk([self.choice({"role": "assistant", "content": ""}, None)])]

    def choice(self, delta: Json, reason: str | None) -> Json:
        """Return a chunk's only choice."""
        return {"index": 0, "delta": delta, "finish_reason": reason}

    def whole_choice(self, text: str, calls: list[Json], reason: str) -> Json:
        """Return a response's only choice."""
        message: Json = {"role": "assistant", "content": text if text or not calls else None}
        if calls:
            message["tool_calls"] = calls
        return {"index": 0, "message": message, "finish_reason": reason}

    def _chunk(self, choices: list[Json], **extra: Any) -> bytes:
        return sse(
            {
                "id": self._id,
                "object": self.chunk_object,
                "created": self._created,
                "model": self._model,
                "choices": choices,
                **extra,
            }
        )


class CompletionResponses(ChatResponses):
    """Builds the responses to one completion request."""

    object = "text_completion"
    chunk_object = "text_completion"
    id_prefix = "cmpl-"
    text_head = '"text":'
    text_tail = ',"finish_reason":null}]}\n\n'

    def opening(self) -> list[bytes]:
        """Return what a stream starts with: nothing."""
        return []

    def choice(self, delta: Json, reason: str | None) -> Json:  # noqa: ARG002  # there are no deltas here
        """Return a chunk's only choice."""
        return {"index": 0, "text": "", "finish_reason": reason}

    def whole_choice(self, text: str, calls: list[Json], reason: str) -> Json:  # noqa: ARG002  # no tools here
        """Return a response's only choice."""
        return {"index": 0, "text": text, "logprobs": None, "finish_reason": reason}


def _tool_call(call: ToolCall, *, delta: bool) -> Json:
    body: Json = {
        "id": "call_" + secrets.token_hex(12),
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    }
    return {"index": call.index, **body} if delta else body
