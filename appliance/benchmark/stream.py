"""Reads a stream of server-sent events at the least cost, because the client shares the cores with the server.

An event that carries text is recognised by its bytes; only the first of them and those that end the answer are parsed.
What is read: OpenAI's chat and completion chunks (https://platform.openai.com/docs/api-reference/chat-streaming),
llama-server's `timings` and DeepSeek's and vLLM's reasoning.
"""

import json
import re
from typing import Any

_TEXT = re.compile(rb'"(?:content|text|reasoning_content|reasoning|arguments)"\s*:\s*"(?!")')
_SPECIAL = re.compile(rb'"(?:usage|timings|error)"\s*:\s*[{"]')
_FINISHED = re.compile(rb'"finish_reason"\s*:\s*"')
DONE = b"[DONE]"
LONGEST_LINE = 1 << 20
LONGEST_QUOTE = 200


class StreamError(Exception):
    """The stream is not what it should be; `kind` is what it is counted as."""

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(detail or kind)
        self.kind = kind


class AnswerReader:
    """Takes an answer's bytes as they arrive."""

    def __init__(self) -> None:
        self._rest = b""
        self._checked = False
        self.ended = False
        """Whether the server said that the answer is complete."""
        self.usage: dict[str, Any] = {}
        self.timings: dict[str, Any] = {}

    def feed(self, received: bytes) -> int:
        """Return how many events with text are complete now.

        Raises:
            StreamError: the bytes are no such stream, or the server reports an error in it.
        """
        lines = (self._rest + received).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > LONGEST_LINE:
            raise StreamError("not an event stream", "a line is longer than 1 MiB")
        texts = 0
        for line in lines:
            if line.startswith(b"data:"):
                texts += self._event(line)
        return texts

    def end(self) -> None:
        """Take the end of the connection.

        Raises:
            StreamError: the answer is not complete.
        """
        if not self.ended:
            raise StreamError("cut short", "the stream ended before the answer did")

    def _event(self, line: bytes) -> int:
        has_text = _TEXT.search(line) is not None
        if has_text and self._checked and _FINISHED.search(line) is None and _SPECIAL.search(line) is None:
            return 1
        data = line[5:].strip()
        if data == DONE:
            self.ended = True
            return 0
        if not has_text and _SPECIAL.search(line) is None and _FINISHED.search(line) is None and self._checked:
            return 0
        self._parse(data)
        return int(has_text)

    def _parse(self, data: bytes) -> None:
        try:
            event = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise StreamError("not an event stream", f"an event is no JSON: {error}") from error
        if not isinstance(event, dict):
            raise StreamError("not an event stream", "an event is no JSON object")
        if event.get("error"):
            raise StreamError("error in the stream", _message(event["error"]))
        self._checked = True
        for name in ("usage", "timings"):
            if isinstance(event.get(name), dict):
                setattr(self, name, event[name])
        choices = event.get("choices")
        if isinstance(choices, list) and any(isinstance(one, dict) and one.get("finish_reason") for one in choices):
            self.ended = True


def error_of(body: bytes) -> str:
    """Return what the body of a failed request says, shortened."""
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        return _short(body[: LONGEST_QUOTE * 4].decode(errors="replace"))
    return _message(parsed.get("error", parsed)) if isinstance(parsed, dict) else _short(str(parsed))


def _message(error: Any) -> str:
    return _short(str(error.get("message", error)) if isinstance(error, dict) else str(error))


def _short(text: str) -> str:
    plain = "".join(character if character.isprintable() else " " for character in text).strip()
    return plain if len(plain) <= LONGEST_QUOTE else plain[:LONGEST_QUOTE] + "…"
