"""Bodies of responses, in OpenAI's shapes.

What a stream repeats in every chunk is serialised once; a chunk of text costs one JSON string.
"""

import secrets
import time
from collections.abc import Sequence
from typing import Any, Literal

from appliance.experts.events import (
    Event,
    Failed,
    Finished,
    ReasoningDelta,
    TextDelta,
    Timings,
    TokenLogprob,
    ToolCallArguments,
    ToolCallEnd,
    ToolCallStart,
)
from appliance.experts.http.logprobs import chat_logprobs, completion_logprobs
from appliance.experts.http.usage import timings_json, usage
from appliance.experts.http.wire import Json, json_text, sse

DONE = b"data: [DONE]\n\n"


class ChatResponses:
    """Builds the responses to one chat request."""

    object: Literal["chat.completion", "text_completion"] = "chat.completion"
    chunk_object = "chat.completion.chunk"
    id_prefix = "chatcmpl-"
    text_head = '"delta":{"content":'
    text_tail = '},"finish_reason":null}]}\n\n'

    def __init__(self, model: str, *, per_prompt: int = 1, logprobs: bool = False, dropped: int = 0) -> None:
        """Take the answers to each prompt, whether log probabilities are told, and how many messages were dropped."""
        self._id = self.id_prefix + secrets.token_hex(12)
        self._created = int(time.time())
        self._model = model
        self._per_prompt = per_prompt
        self._logprobs = logprobs
        self._dropped: Json = {"dropped_messages": dropped} if dropped else {}
        self._timings: dict[int, Timings] = {}
        self._opened: set[int] = set()
        self._head = (
            f'data: {{"id":"{self._id}","object":"{self.chunk_object}","created":{self._created},'
            f'"model":{json_text(model)},"choices":[{{"index":'
        )

    def chunks(self, index: int, events: Sequence[Event]) -> bytes:
        """Return one answer's events as server-sent events."""
        parts: list[bytes] = []
        if index not in self._opened:
            self._opened.add(index)
            parts += self.opening(index)
        for event in events:
            match event:
                case TextDelta(text, ()):
                    parts.append(f"{self._head}{index},{self.text_head}{json_text(text)}{self.text_tail}".encode())
                case TextDelta(text, logprobs):
                    parts.append(self._chunk([self.text_choice(index, text, logprobs)]))
                case ReasoningDelta(text):
                    parts.append(self._delta(index, {"reasoning_content": text}))
                case ToolCallStart() | ToolCallArguments():
                    parts.append(self._delta(index, {"tool_calls": [_call_delta(event)]}))
                case ToolCallEnd():
                    pass
                case Finished(reason, timings):
                    self._timings[index] = timings
                    measured = timings_json([timings]) | self._dropped
                    parts.append(self._chunk([self.choice(index, {}, reason)], timings=measured))
                case Failed():
                    raise event.error
        return b"".join(parts)

    def ending(self, *, include_usage: bool) -> bytes:
        """Return the end of a stream, when all answers have ended."""
        timings = [self._timings[index] for index in sorted(self._timings)]
        return (self._chunk([], usage=usage(timings, self._per_prompt)) if include_usage else b"") + DONE

    def whole(self, answers: Sequence[tuple[Sequence[Event], Finished]]) -> Json:
        """Return the response of a request that did not stream."""
        timings = [finished.timings for _, finished in answers]
        return {
            "id": self._id,
            "object": self.object,
            "created": self._created,
            "model": self._model,
            "choices": [
                self.whole_choice(index, events, finished.reason) for index, (events, finished) in enumerate(answers)
            ],
            "usage": usage(timings, self._per_prompt),
            "timings": timings_json(timings) | self._dropped,
        }

    def opening(self, index: int) -> list[bytes]:
        """Return what an answer's stream starts with."""
        return [self._delta(index, {"role": "assistant", "content": ""})]

    def choice(self, index: int, delta: Json, reason: str | None) -> Json:
        """Return a chunk's only choice."""
        return {"index": index, "delta": delta, "finish_reason": reason}

    def text_choice(self, index: int, text: str, logprobs: Sequence[TokenLogprob]) -> Json:
        """Return the choice of a chunk of text with log probabilities."""
        return {**self.choice(index, {"content": text}, None), "logprobs": chat_logprobs(logprobs)}

    def whole_choice(self, index: int, events: Sequence[Event], reason: str) -> Json:
        """Return a choice of a response; a call that was not completed is left out."""
        text = "".join(event.text for event in events if isinstance(event, TextDelta))
        thoughts = "".join(event.text for event in events if isinstance(event, ReasoningDelta))
        calls = _whole_calls(events)
        message: Json = {"role": "assistant", "content": text if text or not calls else None}
        if thoughts:
            message["reasoning_content"] = thoughts
        if calls:
            message["tool_calls"] = calls
        choice: Json = {"index": index, "message": message, "finish_reason": reason}
        if self._logprobs:
            choice["logprobs"] = chat_logprobs(_told(events))
        return choice

    def _delta(self, index: int, delta: Json) -> bytes:
        return self._chunk([self.choice(index, delta, None)])

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

    def opening(self, index: int) -> list[bytes]:  # noqa: ARG002  # nothing to say of an answer
        """Return what an answer's stream starts with: nothing."""
        return []

    def choice(self, index: int, delta: Json, reason: str | None) -> Json:  # noqa: ARG002  # there are no deltas here
        """Return a chunk's only choice."""
        return {"index": index, "text": "", "finish_reason": reason}

    def text_choice(self, index: int, text: str, logprobs: Sequence[TokenLogprob]) -> Json:
        """Return the choice of a chunk of text with log probabilities."""
        return {"index": index, "text": text, "logprobs": completion_logprobs(logprobs), "finish_reason": None}

    def whole_choice(self, index: int, events: Sequence[Event], reason: str) -> Json:
        """Return a choice of a response."""
        text = "".join(event.text for event in events if isinstance(event, TextDelta))
        logprobs = completion_logprobs(_told(events)) if self._logprobs else None
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}


def _told(events: Sequence[Event]) -> list[TokenLogprob]:
    return [token for event in events if isinstance(event, TextDelta) for token in event.logprobs]


def _call_delta(event: ToolCallStart | ToolCallArguments) -> Json:
    if isinstance(event, ToolCallArguments):
        return {"index": event.index, "function": {"arguments": event.text}}
    return {"index": event.index, **_call(event.name, "")}


def _whole_calls(events: Sequence[Event]) -> list[Json]:
    names = {event.index: event.name for event in events if isinstance(event, ToolCallStart)}
    arguments = [event for event in events if isinstance(event, ToolCallArguments)]
    return [
        _call(names[event.index], "".join(part.text for part in arguments if part.index == event.index))
        for event in events
        if isinstance(event, ToolCallEnd)
    ]


def _call(name: str, arguments: str) -> Json:
    return {
        "id": "call_" + secrets.token_hex(12),
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }
