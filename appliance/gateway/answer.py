"""What an expert's answer must look like, and how the `rouse` object gets into it.

Of a stream, only the first event is read: an error there is no answer yet, and the object is put into it. An event
of its own would have to come without choices, and clients that read `choices[0]` of each would fail on it. What
follows is passed on unread, except for its end, which says how many tokens there were.
Protocol: https://html.spec.whatwg.org/multipage/server-sent-events.html and OpenAI's chat completion chunks.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from appliance.gateway.errors import BadAnswerError

JSON = "application/json"
EVENT_STREAM = "text/event-stream"
MAX_FIRST_EVENT = 256 * 1024
"""Bytes before the end of a stream's first event."""
TAIL_BYTES = 4096
"""Bytes at a stream's end that are searched for the number of tokens."""
MAX_QUOTED = 200
"""Characters of an expert's text that an error repeats."""

_DATA_LINE = re.compile(rb"(?:\A|[\r\n])data:[ ]?([^\r\n]*)[\r\n]")
_USAGE_LINE = re.compile(rb'(?:\A|[\r\n])data:[ ]?(\{[^\r\n]*"usage":[ ]?\{[^\r\n]*)[\r\n]')
_END = re.compile(rb'(?:\A|[\r\n])data:[ ]?(?:\[DONE\]|\{"error")')


@dataclass(frozen=True, slots=True)
class Usage:
    """How many tokens an answer took, as the expert counts."""

    prompt: int
    completion: int


def first_event(begun: bytes) -> int | None:
    """Return where the JSON object of a stream's first event begins, or None if the event is not yet whole.

    Raises:
        BadAnswerError: it is no chunk of an answer.
    """
    found = _DATA_LINE.search(begun)
    if found is None:
        if len(begun) > MAX_FIRST_EVENT:
            raise BadAnswerError("its stream begins with something else than an event")
        return None
    if found[1] == b"[DONE]":
        raise BadAnswerError("its stream ended without an answer")
    _checked(found[1], ("choices",))
    return found.start(1)


def check_whole(body: bytes) -> Usage | None:
    """Return the tokens of an answer in one piece, if it says them.

    Raises:
        BadAnswerError: it is no answer.
    """
    return _usage(_checked(body, ("choices", "data")))


def with_member(body: bytes, start: int, member: bytes) -> bytes:
    """Put a member in front of the others of the JSON object that begins at `start` and is not empty."""
    brace = body.index(b"{", start) + 1
    return b"%b%b,%b" % (body[:brace], member, body[brace:])


def longer_tail(tail: bytes, chunk: bytes) -> bytes:
    """Return the last bytes of a stream, given what the last ones were before a chunk came."""
    return chunk if len(chunk) >= TAIL_BYTES else (tail + chunk)[-TAIL_BYTES:]


def is_complete(tail: bytes) -> bool:
    """Whether a stream with this end says itself how it ended: whole, or with an error."""
    return _END.search(tail) is not None


def usage_at_end(tail: bytes) -> Usage | None:
    """Return the tokens that the end of a stream says, if it does."""
    lines = _USAGE_LINE.findall(tail)
    if not lines:
        return None
    try:
        return _usage(from_json(lines[-1]))
    except ValueError:
        return None


def error_message(body: bytes) -> str:
    """Return what an error's body says, in a few words."""
    try:
        error = from_json(body)["error"]
        text = error["message"] if isinstance(error, Mapping) else error
    except (ValueError, KeyError, TypeError):
        return ""
    return "".join(character if character.isprintable() else " " for character in str(text)[:MAX_QUOTED])


def _checked(text: bytes, any_of: tuple[str, ...]) -> Mapping[str, Any]:
    try:
        value = from_json(text)
    except ValueError:
        raise BadAnswerError(f"it answered what is not JSON: {_shown(text)}") from None
    if not isinstance(value, dict):
        raise BadAnswerError(f"it answered no JSON object: {_shown(text)}")
    if value.get("error"):
        raise BadAnswerError(f"it answered with an error: {error_message(text) or _shown(text)}")
    if not any(isinstance(value.get(key), list) for key in any_of):
        raise BadAnswerError(f"it answered without {' or '.join(any_of)}: {_shown(text)}")
    return value


def _shown(text: bytes) -> str:
    return ascii(text[:MAX_QUOTED].decode(errors="replace"))


def _usage(answer: Mapping[str, Any]) -> Usage | None:
    usage = answer.get("usage")
    if not isinstance(usage, Mapping):
        return None
    prompt, completion = usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0)
    if not all(type(count) is int and 0 <= count < 2**53 for count in (prompt, completion)):
        return None
    return Usage(prompt, completion)
