"""One request to an agent, from the first publication to the last piece of its answer."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager
from enum import Enum, auto
from math import inf
from typing import Protocol

from .errors import ChatError
from .messages import ChatRequest, Reply
from .replies import Assembler, Piece

MAX_SILENCE = 10.0
"""Seconds of silence after which a request is repeated."""
HUB_GRACE = 10.0
"""Seconds that a hub which went away during a request has to come back, while the broker is there."""


class Event(Enum):
    """What happens to the connection during a request."""

    RESUBSCRIBED = auto()
    HUB_OFFLINE = auto()
    HUB_ONLINE = auto()
    CLOSED = auto()


class Inbox(asyncio.Queue[Reply | Event]):
    """What arrives for one request."""


class Channel(Protocol):
    """The way to an agent and back."""

    @property
    def trouble(self) -> str | None:
        """Why no answer can be expected, as a `ChatError`'s reason, or None."""

    def open(self, request_id: str) -> AbstractContextManager[Inbox]:
        """Collect a request's replies."""

    async def send(self, agent: str, request: ChatRequest) -> None:
        """Publish a request.

        Raises:
            ChatError: it can't be published.
        """

    def repeat(self, agent: str, request: ChatRequest) -> None:
        """Publish a request again; failure is no error."""

    def cancel(self, agent: str, request: ChatRequest) -> None:
        """Tell the agent that nobody waits any more."""


async def ask(channel: Channel, agent: str, request: ChatRequest, *, time_limit: float) -> AsyncGenerator[Piece]:
    """Send a request and yield its answer piece by piece; a caller that stops early cancels it.

    The same request is published again when the connection was interrupted or nothing is heard:
    the hub answers a repeated id with what it has instead of running it twice.

    Args:
        channel: The way to the agent.
        agent: The agent's name.
        request: What to ask.
        time_limit: Seconds until the whole answer has to be there.

    Raises:
        ChatError: there is no answer; says why.
    """
    reply = Assembler()
    patience = _Patience(channel, time_limit)
    with channel.open(request.id) as inbox:
        try:
            await channel.send(agent, request)
            while not reply.complete:
                event = await _next(inbox, patience.until)
                if event is not None and not isinstance(event, Event):
                    for piece in reply.feed(event):
                        yield piece
                    continue
                if event is Event.HUB_ONLINE:
                    # A restarted hub runs the request from the start.
                    reply.distrust()
                if patience.wants_repetition(event):
                    channel.repeat(agent, request)
        finally:
            if not reply.complete:
                channel.cancel(agent, request)


class _Patience:
    """Knows how long to wait, and when to say the same again."""

    def __init__(self, channel: Channel, time_limit: float) -> None:
        self._channel = channel
        self._now = asyncio.get_running_loop().time
        self._give_up = self._now() + time_limit
        self._silence = min(time_limit / 3, MAX_SILENCE)
        self._hub_lost = inf
        """When a hub that went away counts as lost."""

    @property
    def until(self) -> float:
        """The time at which waiting for a message ends."""
        return min(self._now() + self._silence, self._give_up, self._hub_lost)

    def wants_repetition(self, event: Event | None) -> bool:
        """Judge an event, or with None that nothing came until it was time.

        Raises:
            ChatError: it is no use to wait longer.
        """
        match event:
            case None if self._now() >= self._give_up:
                raise ChatError(self._channel.trouble or "timed_out")
            case None if self._now() >= self._hub_lost and self._channel.trouble == "hub_offline":
                raise ChatError("hub_offline")
            case Event.CLOSED:
                raise ChatError("closed")
            case Event.HUB_OFFLINE:
                self._hub_lost = self._now() + HUB_GRACE
                return False
            case Event.HUB_ONLINE:
                self._hub_lost = inf
            case _ if self._hub_lost < inf and (event or self._channel.trouble != "hub_offline"):
                # A broker that stops takes the hub with it, and both come back.
                self._hub_lost = self._now() + HUB_GRACE
        return True


async def _next(inbox: Inbox, until: float) -> Reply | Event | None:
    try:
        async with asyncio.timeout_at(until):
            return await inbox.get()
    except TimeoutError:
        return None
