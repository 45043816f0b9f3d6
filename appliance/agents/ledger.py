"""Which requests were seen, so that none is executed twice."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from appliance.bus.messages import ReplyFailed, ReplyFinished

GRACE_SECONDS = 60.0
"""How long after its deadline a request is remembered: MQTT may deliver a repetition late."""
MAX_ENTRIES = 4096

type Key = tuple[str, str]
"""Client and request id."""


@dataclass(slots=True)
class Entry:
    """A request that was seen."""

    forget_at: float
    task: asyncio.Task[None] | None = None
    final: ReplyFinished | ReplyFailed | None = None
    """What its last message was, once it is over."""


class Ledger:
    """Requests by client and id, forgotten some time after their deadline."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._entries: dict[Key, Entry] = {}

    def find(self, key: Key) -> Entry | None:
        """Return the entry of a request that was seen before."""
        return self._entries.get(key)

    def open(self, key: Key, deadline: float) -> Entry | None:
        """Enter a new request; None when too many are remembered."""
        now = self._clock()
        for old in [k for k, entry in self._entries.items() if entry.forget_at < now and entry.final]:
            del self._entries[old]
        if len(self._entries) >= MAX_ENTRIES:
            return None
        entry = Entry(forget_at=max(deadline, now) + GRACE_SECONDS)
        self._entries[key] = entry
        return entry
