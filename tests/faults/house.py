"""A whole appliance as real processes: broker, hub, node and experts, and clients of theirs."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import aiohttp
import psutil

from appliance.bus.client import Bus
from appliance.bus.connection import Connection
from appliance.bus.messages import ExpertStatus, Presence
from appliance.bus.topics import (
    AGENT_ANNOUNCEMENT,
    EXPERT_STATUS,
    HUB_ANNOUNCEMENT,
    HUB_STATUS,
    NODE_ANNOUNCEMENT,
    NODE_POWER,
    NODE_STATUS,
    REPLY,
    Topic,
)
from appliance.security.layout import secret_file
from scripts.house.appliance import ONE_EXPERT, Appliance
from scripts.house.mosquitto import mosquitto
from scripts.house.processes import free_port, tail
from tests.system.client import House as BusClient
from tests.system.client import Inbox
from tests.system.conftest import PASSWORDS, RunningBroker

NODE = "demo"
CLIENT = "house"
LONG = "Tell me a very long story about a dragon and the sea."
"""What the model answers in hundreds of tokens, so that there is time to disturb it."""
ENDLESS: dict[str, Any] = {"stream": True, "max_tokens": 1000, "logit_bias": {"0": -100, "2": -100}}
"""Members of a request whose answer does not end: SmolLM2's tokens that end one are forbidden."""
RETAINED: tuple[Topic[Any], ...] = (
    HUB_STATUS, HUB_ANNOUNCEMENT, AGENT_ANNOUNCEMENT, NODE_STATUS, NODE_ANNOUNCEMENT, EXPERT_STATUS,
    NODE_POWER,
)  # fmt: skip

type Kind = Literal["amqtt", "mosquitto"]


class Observed:
    """The retained state of the bus, as a late subscriber sees it."""

    def __init__(self, bus: Bus) -> None:
        self.latest: dict[str, Any] = {}
        for topic in RETAINED:
            bus.subscribe(topic, self._noting(topic))

    def _noting(self, topic: Topic[Any]) -> Callable[..., Any]:
        async def note(message: Any, levels: Mapping[str, str]) -> None:
            self.latest[topic.at(**levels)] = message

        return note

    async def until(self, condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"not seen on the bus: {what}; there is {self.latest}") from None

    def expert(self, name: str) -> ExpertStatus | None:
        return self.latest.get(EXPERT_STATUS.at(node=NODE, expert=name))

    async def until_expert(self, name: str, state: str, seconds: float = 60) -> ExpertStatus:
        def there() -> bool:
            status = self.expert(name)
            return status is not None and status.state == state

        await self.until(there, f"expert {name} {state}", seconds)
        status = self.expert(name)
        assert status is not None
        return status


class House:
    """A running appliance and its clients."""

    def __init__(
        self,
        appliance: Appliance,
        *,
        broker: RunningBroker | None,
        http: aiohttp.ClientSession,
        client: BusClient,
        observed: Observed,
    ) -> None:
        self.appliance = appliance
        self.broker = broker
        """The external broker; None if the hub's own is used."""
        self.http = http
        self.client = client
        self.observed = observed
        self.url = f"http://127.0.0.1:{appliance.gateway_port}"

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.appliance.secret('gateway.key')}"}

    def post(self, path: str = "/v1/chat/completions", **body: Any) -> Any:
        return self.http.post(self.url + path, json=body, headers=self.headers)

    def chat(self, text: str, **body: Any) -> Any:
        return self.post(messages=[{"role": "user", "content": text}], **body)

    async def answers(self, model: str = "auto") -> str:
        """Ask for an answer over HTTP and return which expert gave it."""
        async with self.chat("Say hello.", model=model, max_tokens=4) as response:
            body = await response.json()
            assert response.status == 200, (body, self.logs())
            assert body["choices"][0]["message"]["content"]
            return str(response.headers["X-Rouse-Expert"])

    async def until_answered_by(self, expert: str) -> None:
        """Ask until an expert answers: the gateway may hear later than we do that it is ready."""
        async with asyncio.timeout(60):
            while await self.answers(expert) != expert:
                await asyncio.sleep(0.1)

    async def answers_on_the_bus(self, request_id: str, seconds: float = 60) -> None:
        await self.client.ask(request_id, seconds=seconds)
        final = await self.client.final(request_id, seconds=seconds)
        assert final.kind == "finished", (final, self.logs())

    def process(self, name: str) -> psutil.Process:
        """Return the hub's or the node's process; both are children of this one."""
        return child_of(psutil.Process(), "appliance", name)

    def expert(self, name: str) -> psutil.Process:
        return child_of(self.process("node"), "--supervised", name)

    def logs(self) -> str:
        return "\n".join(f"--- {name}\n{tail(self.appliance.log(name))}" for name in ("hub", "node"))

    def log(self, name: str) -> str:
        return self.appliance.log(name).read_text(errors="replace")

    async def until_idle(self, expert: str = "small") -> None:
        """Wait until no slot of an expert is busy."""
        status = await self.observed.until_expert(expert, "ready")
        url = str(status.url).removesuffix("/v1")
        async with asyncio.timeout(60):
            while True:
                async with self.http.get(f"{url}/health") as response:
                    health = await response.json()
                if health["active"] == health["queued"] == 0:
                    return
                await asyncio.sleep(0.05)


def child_of(parent: psutil.Process, *words: str) -> psutil.Process:
    found = [child for child in parent.children() if tuple(child.cmdline()[-len(words) :]) == words]
    assert len(found) == 1, found
    return found[0]


async def start_broker(kind: Kind, folder: Path, stack: AsyncExitStack) -> RunningBroker | None:
    if kind == "amqtt":
        return None
    return await stack.enter_async_context(
        RunningBroker(lambda port: mosquitto(folder / "mosquitto", port=port, passwords=PASSWORDS))
    )


@asynccontextmanager
async def running_house(
    folder: Path, kind: Kind, *, experts: Mapping[str, Path] = ONE_EXPERT, group: str = ""
) -> AsyncIterator[House]:
    """Start everything and wait until the experts are ready.

    Args:
        folder: for configuration, state and logs.
        kind: the hub's own broker (amqtt), or mosquitto.
        experts: models by name.
        group: further settings in TOML, weaker than those that `Appliance` writes.
    """
    async with AsyncExitStack() as stack:
        broker = await start_broker(kind, folder, stack)
        appliance = Appliance(
            folder / "rouse",
            broker_port=broker.port if broker else free_port(),
            gateway_port=free_port(),
            password=PASSWORDS["rouse"] if broker else None,
            experts=experts,
        )
        appliance.configure()
        (appliance.folder / "groups").mkdir()
        (appliance.folder / "groups" / "all.toml").write_text(group)
        for name in ("hub", "node"):
            await stack.enter_async_context(appliance.process(name))
        http = await stack.enter_async_context(
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(100))
        )
        bus = Bus(await _home_assistants_connection(appliance, broker), identifier="house")
        client = BusClient(bus, Inbox())
        bus.subscribe(REPLY, client.inbox, client=CLIENT)
        observed = Observed(bus)
        await stack.enter_async_context(bus)
        house = House(appliance, broker=broker, http=http, client=client, observed=observed)
        try:
            for name in experts:
                await observed.until_expert(name, "ready")
            await observed.until(lambda: AGENT_ANNOUNCEMENT.at(agent="home") in observed.latest, "the agent")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{house.logs()}") from None
        yield house


async def _home_assistants_connection(appliance: Appliance, broker: RunningBroker | None) -> Connection:
    if broker is not None:
        return broker.connection("homeassistant")
    file = secret_file(appliance.folder / "state", "broker-homeassistant.password")
    async with asyncio.timeout(30):
        while not file.exists():
            await asyncio.sleep(0.05)
    return Connection(
        "127.0.0.1", appliance.broker_port, "homeassistant", appliance.secret("broker-homeassistant.password")
    )


def events(body: bytes) -> list[Any]:
    """Return the JSON of a stream's server-sent events."""
    lines = [line[5:].strip() for line in body.splitlines() if line.startswith(b"data:")]
    return [json.loads(line) for line in lines if line != b"[DONE]"]


def is_online(presence: Presence | None) -> bool:
    return presence is not None and presence.state == "online"
