"""Putting a streamed reply together, whatever is lost or repeated on the way."""

import logging
from collections.abc import Iterator

from .errors import ChatError
from .messages import Reply, ReplyFailed, ReplyFinished, ReplyText, ReplyToolCall, ToolCall

_LOGGER = logging.getLogger(__name__)

type Piece = str | ToolCall

_FAILURES = frozenset({"invalid_request", "expired", "no_expert", "overloaded", "model_error", "cancelled", "stopping"})


class Assembler:
    """Turns the messages of one reply into the pieces of an answer, each piece once.

    Pieces come out as long as the sequence is complete. After a gap nothing does until the final
    message, which repeats everything, brings the rest.
    """

    def __init__(self) -> None:
        self.complete = False
        """Whether the final message, good or bad, has arrived."""
        self._next = 0
        self._gap = False
        self._text = ""
        self._calls: list[str] = []

    def distrust(self) -> None:
        """Expect nothing but the final message to follow on what came so far."""
        self._gap = self._next > 0

    def feed(self, reply: Reply) -> Iterator[Piece]:
        """Yield what the message adds to the answer.

        Raises:
            ChatError: the hub reports a failure, or the answer is empty.
        """
        match reply:
            case ReplyFailed():
                self.complete = True
                _LOGGER.warning("The request failed with %s: %s", reply.code, reply.message)
                raise ChatError(reply.code if reply.code in _FAILURES else "failed")
            case ReplyFinished():
                self.complete = True
                yield from self._rest(reply)
            case _ if self._gap or reply.seq < self._next:
                pass
            case _ if reply.seq > self._next:
                _LOGGER.debug("Expected message %s of a reply, got %s", self._next, reply.seq)
                self._gap = True
            case _:
                self._next += 1
                yield from self._piece(reply)

    def _piece(self, reply: Reply) -> Iterator[Piece]:
        match reply:
            case ReplyText() if reply.text:
                self._text += reply.text
                yield reply.text
            case ReplyToolCall() if reply.call.id not in self._calls:
                self._calls.append(reply.call.id)
                yield reply.call

    def _rest(self, reply: ReplyFinished) -> Iterator[Piece]:
        calls = {call.id: call for call in reply.tool_calls}
        if not reply.text.strip() and not calls:
            raise ChatError("empty_answer")
        if not reply.text.startswith(self._text) or not calls.keys() >= set(self._calls):
            _LOGGER.warning("The final message of a reply contradicts the earlier ones")
            return
        if rest := reply.text[len(self._text) :]:
            yield rest
        yield from (call for call in calls.values() if call.id not in self._calls)
