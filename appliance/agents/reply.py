"""Writes one reply to the bus as a numbered stream."""

import logging
import time
from collections.abc import Callable

from appliance.agents.model import Finish
from appliance.bus.client import Bus
from appliance.bus.errors import BusUnavailableError
from appliance.bus.messages import (
    ChatRequest,
    FailureCode,
    ReplyFailed,
    ReplyFinished,
    ReplyMessage,
    ReplyText,
    ReplyToolCall,
)
from appliance.bus.topics import REPLY

_log = logging.getLogger(__name__)

COALESCE_SECONDS = 0.05
"""Text that comes within this time travels in one message: smooth to the eye, and ten times fewer
messages than one a token."""

MAX_LOST = 1
"""Pieces that the broker did not take before the rest is kept for the final message."""


class ReplyStream:
    """The reply to one request: text pieces, then its end."""

    def __init__(self, *, bus: Bus, request: ChatRequest, clock: Callable[[], float] = time.monotonic) -> None:
        self._bus = bus
        self._request = request
        self._clock = clock
        self._started = clock()
        self._seq = 0
        self._lost = 0
        self._pieces: list[str] = []
        self._waiting: list[str] = []
        self._sent_at = float("-inf")
        self._first_token: float | None = None

    async def text(self, piece: str) -> None:
        """Add a piece of the answer; it is sent at once or with the next ones."""
        now = self._clock()
        if self._first_token is None:
            self._first_token = now - self._started
        self._pieces.append(piece)
        self._waiting.append(piece)
        if now - self._sent_at >= COALESCE_SECONDS:
            await self._flush()

    async def finish(self, finish: Finish) -> ReplyFinished:
        """Send the end of a good reply."""
        await self._flush()
        for call in finish.tool_calls:
            await self._send(ReplyToolCall(id=self._request.id, seq=self._next(), call=call))
        duration = self._clock() - self._started
        final = ReplyFinished(
            id=self._request.id,
            seq=self._next(),
            text="".join(self._pieces),
            tool_calls=finish.tool_calls,
            reason=finish.reason,
            expert=finish.expert,
            prompt_tokens=finish.prompt_tokens,
            completion_tokens=finish.completion_tokens,
            first_token=duration if self._first_token is None else self._first_token,
            duration=duration,
            origin=finish.origin,
        )
        await self._send(final)
        return final

    async def fail(self, code: FailureCode, message: str) -> ReplyFailed:
        """Send the end of a reply that failed."""
        final = ReplyFailed(id=self._request.id, seq=self._next(), code=code, message=message)
        await self._send(final)
        return final

    async def repeat(self, final: ReplyFinished | ReplyFailed) -> None:
        """Send the end of an earlier run of the same request again."""
        await self._send(final)

    def _next(self) -> int:
        seq = self._seq
        self._seq += 1
        return seq

    async def _flush(self) -> None:
        if not self._waiting:
            return
        text = "".join(self._waiting)
        self._waiting.clear()
        self._sent_at = self._clock()
        await self._send(ReplyText(id=self._request.id, seq=self._next(), text=text))

    async def _send(self, message: ReplyMessage) -> None:
        final = isinstance(message, ReplyFinished | ReplyFailed)
        if self._lost >= MAX_LOST and not final:
            return
        try:
            await self._bus.publish(REPLY, message, client=self._request.client)
        except BusUnavailableError as error:
            # The numbers show the client what it missed, and the final message repeats everything.
            self._lost += 1
            _log.warning("reply %s: a message was lost: %s", self._request.id, error)
