"""Real brokers, and a bus on them."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Self

import pytest

from appliance.bus.broker import Account, EmbeddedBroker
from appliance.bus.client import Bus
from appliance.bus.connection import Connection
from scripts.house.mosquitto import mosquitto, program
from scripts.house.processes import free_port

PASSWORDS = {"rouse": "appliance-password", "homeassistant": "house-password"}


class RunningBroker:
    """A real broker on a fixed port that a test can stop and start again."""

    def __init__(self, start: Callable[[int], AbstractAsyncContextManager[object]]) -> None:
        self._start = start
        self._stack = AsyncExitStack()
        self.port = free_port()

    async def start(self) -> None:
        await self._stack.enter_async_context(self._start(self.port))

    async def stop(self) -> None:
        await self._stack.aclose()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.stop()

    def connection(self, user: str = "rouse", password: str | None = None) -> Connection:
        return Connection("127.0.0.1", self.port, user, password or PASSWORDS[user])

    def bus(self, identifier: str, user: str = "rouse") -> Bus:
        return Bus(self.connection(user), identifier=identifier)


def amqtt_on(port: int) -> EmbeddedBroker:
    own = ("rouse/#",)
    accounts = {
        "rouse": Account(PASSWORDS["rouse"], publish=own, subscribe=own),
        "homeassistant": Account(PASSWORDS["homeassistant"]),
    }
    return EmbeddedBroker(host="127.0.0.1", port=port, accounts=accounts)


@pytest.fixture(params=["amqtt", "mosquitto"])
async def broker(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[RunningBroker]:
    """A broker of either kind."""
    if request.param == "mosquitto":
        if program() is None:
            pytest.skip("mosquitto is not installed: apt-get install mosquitto")
        running = RunningBroker(lambda port: mosquitto(tmp_path / "mosquitto", port=port, passwords=PASSWORDS))
    else:
        running = RunningBroker(amqtt_on)
    async with running:
        yield running
