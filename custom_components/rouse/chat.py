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


async def ask(
    channel: Channel, agent: str, request: ChatRequest, *, time_limit: float
) -> AsyncGenerator[Piece]:
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
    loop = asyncio.get_running_loop()
    give_up = loop.time() + time_limit
    silence = min(time_limit / 3, MAX_SILENCE)
    hub_lost = inf
    reply = Assembler()
    with channel.open(request.id) as inbox:
        try:
            await channel.send(agent, request)
            while not reply.complete:
                match await _next(inbox, min(loop.time() + silence, give_up, hub_lost)):
                    case None if loop.time() >= give_up:
                        raise ChatError(channel.trouble or "timed_out")
                    case None if loop.time() >= hub_lost and channel.trouble == "hub_offline":
                        raise ChatError("hub_offline")
                    case Event.HUB_OFFLINE:
                        hub_lost = loop.time() + HUB_GRACE
                    case Event.HUB_ONLINE:
                        hub_lost = inf
                        # A restarted hub runs the request from the start.
                        reply.distrust()
                        channel.repeat(agent, request)
                    case Event.CLOSED:
                        raise ChatError("closed")
                    case (None | Event.RESUBSCRIBED) as event:
                        if hub_lost < inf and (event or channel.trouble != "hub_offline"):
                            # A broker that stops takes the hub with it, and both come back.
                            hub_lost = loop.time() + HUB_GRACE
                        channel.repeat(agent, request)
                    case message:
                        for piece in reply.feed(message):
                            yield piece
        finally:
            if not reply.complete:
                channel.cancel(agent, request)


async def _next(inbox: Inbox, until: float) -> Reply | Event | None:
    try:
        async with asyncio.timeout_at(until):
            return await inbox.get()
    except TimeoutError:
        return None
