"""An MQTT broker in this process, for a house that has none (amqtt, MQTT 3.1.1)."""

import asyncio
import logging
import socket
import ssl
from collections.abc import ItemsView, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from amqtt.adapters import StreamReaderAdapter, StreamWriterAdapter
from amqtt.contexts import BrokerConfig, ListenerConfig, ListenerType
from amqtt.errors import AMQTTError
from amqtt.session import Session

from appliance.bus.broker_access import LISTENER, Account, Gatekeeper, StrictBroker
from appliance.bus.errors import BusConfigurationError

__all__ = ["Account", "EmbeddedBroker", "Listener", "server_tls"]

_log = logging.getLogger(__name__)


class _Subscriptions(dict[str, list[tuple[Session, int]]]):
    """Subscribers by topic filter, which may change while someone goes through them.

    amqtt 0.12.1 awaits in such loops. A client that came or left meanwhile made them fail: a message never
    reached the rest of its subscribers, or a client that was just connecting was dropped.
    """

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(super().__iter__()))

    def items(self) -> ItemsView[str, list[tuple[Session, int]]]:  # type: ignore[override]
        return {topic: list(subscribers) for topic, subscribers in super().items()}.items()


@dataclass(frozen=True, slots=True)
class Listener:
    """Where the broker listens; `setting` is named when the port is taken."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    setting: str = "broker.listen_port"


class EmbeddedBroker:
    """The broker as an async context manager; `port` is the one that it listens on.

    Raises:
        BusConfigurationError: on entry, if the address is taken or the certificate can't be used.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int,
        accounts: Mapping[str, Account],
        tls: ssl.SSLContext | None = None,
        more: Sequence[Listener] = (),
    ) -> None:
        """Take where to listen, and the accounts, which may change while it runs.

        `more` are further listeners; `ports` says afterwards where they are.
        """
        self._listeners = (Listener(host, port, tls), *more)
        self._accounts = accounts
        self._broker: StrictBroker | None = None
        self._stack = AsyncExitStack()
        self.port = port
        self.ports: tuple[int, ...] = ()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            self._broker = await self._start_broker(stack)
            ports = []
            for listener in self._listeners:
                server = await self._listen(self._broker, listener)
                stack.push_async_callback(_close, server)
                ports.append(server.sockets[0].getsockname()[1])
                _log.info("embedded MQTT broker listens on %s:%d", listener.host, ports[-1])
            self.port, *_ = self.ports = tuple(ports)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()
        self._broker = None

    async def drop(self, user: str) -> None:
        """End all connections of a user, whose account has changed or is gone."""
        broker = self._broker
        if broker is None:
            return
        for client, (session, handler) in list(broker.sessions.items()):
            if session.username == user:
                _log.info("embedded MQTT broker: the connection of %s is ended", client)
                await handler.handle_connection_closed()

    async def _start_broker(self, stack: AsyncExitStack) -> StrictBroker:
        broker = StrictBroker(
            BrokerConfig(
                listeners={LISTENER: ListenerConfig(type=ListenerType.EXTERNAL)},
                plugins={f"{Gatekeeper.__module__}.{Gatekeeper.__name__}": {"accounts": self._accounts}},
            )
        )
        broker._subscriptions = _Subscriptions()  # noqa: SLF001 - see there
        await broker.start()
        stack.push_async_callback(broker.shutdown)
        return broker

    async def _listen(self, broker: StrictBroker, listener: Listener) -> asyncio.Server:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            # Small messages must not wait for each other (Nagle's algorithm).
            writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                await broker.external_connected(StreamReaderAdapter(reader), StreamWriterAdapter(writer), LISTENER)
            except (AMQTTError, OSError) as error:
                _log.warning("embedded MQTT broker: a client was dropped: %s", error)

        try:
            return await asyncio.start_server(connected, listener.host, listener.port, ssl=listener.tls)
        except OSError as error:
            raise BusConfigurationError(
                f"the embedded MQTT broker can't listen on {listener.host}:{listener.port}: {error.strerror}. "
                f"Set {listener.setting} to a free port, or broker.url to the broker that runs there."
            ) from error


async def _close(server: asyncio.Server) -> None:
    server.close()
    server.close_clients()
    await server.wait_closed()


def server_tls(cert_file: Path, key_file: Path) -> ssl.SSLContext:
    """Build the listener's TLS context.

    Raises:
        BusConfigurationError: a file can't be read, or holds no matching certificate and key.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(cert_file, key_file)
    except (OSError, ssl.SSLError) as error:
        raise BusConfigurationError(f"broker.listen_cert_file {cert_file}: {error}") from error
    return context
