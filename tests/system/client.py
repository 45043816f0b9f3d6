"""A client of the bus, as Home Assistant is one."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from appliance.bus.client import Bus
from appliance.bus.messages import ChatRequest, Tool, UserMessage
from appliance.bus.topics import CHAT_REQUEST


class Inbox:
    """Collects what a subscription receives."""

    def __init__(self) -> None:
        self.messages: list[tuple[Any, Mapping[str, str]]] = []
        self._changed = asyncio.Event()

    async def __call__(self, message: Any, levels: Mapping[str, str]) -> None:
        self.messages.append((message, levels))
        self._changed.set()

    async def wait_for(self, count: int, seconds: float = 10) -> None:
        async with asyncio.timeout(seconds):
            while len(self.messages) < count:
                self._changed.clear()
                await self._changed.wait()


class House:
    """A client of the agent, as Home Assistant is one."""

    def __init__(self, bus: Bus, replies: Inbox) -> None:
        self.bus = bus
        self.inbox = replies

    async def ask(
        self, request_id: str, *, text: str = "hello", seconds: float = 30, tools: tuple[Tool, ...] = ()
    ) -> None:
        request = ChatRequest(
            id=request_id,
            client="house",
            deadline=time.time() + seconds,
            conversation_id="c",
            messages=(UserMessage(text=text),),
            tools=tools,
        )
        await self.bus.publish(CHAT_REQUEST, request, agent="home")

    def replies(self, request_id: str) -> list[Any]:
        return [message for message, _ in self.inbox.messages if message.id == request_id]

    async def final(self, request_id: str, seconds: float = 10, count: int = 1) -> Any:
        async with asyncio.timeout(seconds):
            while True:
                ends = [r for r in self.replies(request_id) if r.kind in {"finished", "failed"}]
                if len(ends) >= count:
                    return ends[-1]
                await asyncio.sleep(0.01)
