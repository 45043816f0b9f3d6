"""Both brokers with accounts and certificates of the hub, on loopback, and clients that try what they may not."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiomqtt

from appliance.bus.broker import EmbeddedBroker, Listener
from appliance.pairing.identity import NodeKey
from appliance.security.broker import LiveAccounts
from appliance.security.ca.names import HUB_NAME
from appliance.security.house import House, house
from appliance.security.tls import Identity, client_context
from appliance.settings.model import BrokerSettings, PathSettings, Settings
from scripts.house.mosquitto import program
from scripts.house.processes import child, free_port
from tests.system.pairing.beside import configuration, reload_when_changed

REFUSED_SECONDS = 5.0


@dataclass
class Member:
    """A node with what it was given."""

    name: str
    password: str = field(repr=False)
    identity: Identity

    def context(self) -> ssl.SSLContext:
        return client_context(self.identity, expected=HUB_NAME)


@dataclass
class Brokers:
    """A broker that runs, of either kind."""

    kind: str
    offices: House
    plain_port: int
    nodes_port: int
    folder: Path
    noticed: Callable[[], Awaitable[None]]
    """Waits until the broker knows what the hub has changed."""

    def join(self, name: str) -> Member:
        """Give a node what pairing gives it."""
        folder = self.folder / name
        key = NodeKey.open(folder / "node.key")
        authority = self.offices.trust.authority
        (folder / "node.pem").write_bytes(authority.sign(key.request_pem(name), name=name, roles=("expert",), days=30))
        password = self.offices.nodes.add(name)
        trusted = authority.ca_pem.decode()
        return Member(name, password, Identity(folder / "node.pem", folder / "node.key", trusted))

    def client(
        self,
        member: Member,
        *,
        user: str | None = None,
        password: str | None = None,
        identifier: str | None = None,
        will: aiomqtt.Will | None = None,
        clean: bool = True,
        context: ssl.SSLContext | None = None,
    ) -> aiomqtt.Client:
        """Return a connection with a node's certificate, and with what it says of itself."""
        return aiomqtt.Client(
            "127.0.0.1",
            self.nodes_port,
            username=user or member.name,
            password=password or member.password,
            identifier=identifier or f"rouse-node-{member.name}",
            tls_context=context or member.context(),
            will=will,
            clean_session=clean,
            timeout=REFUSED_SECONDS,
        )

    def plain(self, user: str, password: str | None = None, identifier: str | None = None) -> aiomqtt.Client:
        """Return a connection to the listener for this machine and Home Assistant."""
        if password is None:
            kept = self.offices.own[user].password
            assert isinstance(kept, str)
            password = kept
        return aiomqtt.Client(
            "127.0.0.1",
            self.plain_port,
            username=user,
            password=password,
            identifier=identifier,
            timeout=REFUSED_SECONDS,
        )


@asynccontextmanager
async def embedded(folder: Path) -> AsyncIterator[Brokers]:
    offices = house(Settings(paths=PathSettings(state=folder / "state")), name="house")
    offices.prepare()
    more = [Listener("127.0.0.1", 0, offices.trust.server.context)]
    accounts = LiveAccounts(offices.own, offices.nodes)
    async with EmbeddedBroker(host="127.0.0.1", port=0, accounts=accounts, more=more) as broker:

        async def noticed() -> None:
            await asyncio.to_thread(offices.trust.prepare)
            for node in {"attic", "cellar"} - (offices.nodes.all.keys() & offices.trust.nodes):
                await broker.drop(node)

        yield Brokers("embedded", offices, broker.ports[0], broker.ports[1], folder, noticed)


@asynccontextmanager
async def mosquitto(folder: Path) -> AsyncIterator[Brokers]:
    plain, nodes = free_port(), free_port()
    broker = BrokerSettings(url=f"mqtt://127.0.0.1:{plain}", mosquitto_folder=folder / "mosquitto", nodes_port=nodes)
    offices = house(Settings(paths=PathSettings(state=folder / "state"), broker=broker), name="house")
    offices.prepare()
    file, log = folder / "mosquitto.conf", folder / "mosquitto.log"
    file.write_text(configuration(folder / "mosquitto", broker_port=plain, nodes_port=nodes))
    async with AsyncExitStack() as stack:
        process = await stack.enter_async_context(child([program() or "", "-c", file], log=log, grace=5))
        async with asyncio.timeout(10):
            while "running" not in (log.read_text() if log.exists() else ""):
                await asyncio.sleep(0.05)
        watching = asyncio.create_task(reload_when_changed(process.pid, folder / "mosquitto"))
        stack.callback(watching.cancel)
        reloads = 0

        async def noticed() -> None:
            nonlocal reloads
            await asyncio.to_thread(offices.prepare)
            with suppress(TimeoutError):
                async with asyncio.timeout(3):
                    while log.read_text().count("Reloading config") <= reloads:
                        await asyncio.sleep(0.05)
            reloads = log.read_text().count("Reloading config")

        yield Brokers("mosquitto", offices, plain, nodes, folder, noticed)
