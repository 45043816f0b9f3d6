"""An MQTT broker in this process, for a house that has none (amqtt, MQTT 3.1.1)."""

import asyncio
import logging
import socket
import ssl
import tempfile
from collections.abc import ItemsView, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from amqtt.adapters import StreamReaderAdapter, StreamWriterAdapter
from amqtt.broker import Broker
from amqtt.contexts import BrokerConfig, ListenerConfig, ListenerType
from amqtt.errors import AMQTTError
from amqtt.plugins.topic_checking import TopicAccessControlListPlugin
from amqtt.session import Session
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from appliance.bus.errors import BusConfigurationError

_log = logging.getLogger(__name__)

_LISTENER = "default"


@dataclass(frozen=True, slots=True)
class Account:
    """A user of the broker and the topic filters it may use."""

    password: str = field(repr=False)
    publish: tuple[str, ...] = ("#",)
    subscribe: tuple[str, ...] = ("#",)


class AccessControl(TopicAccessControlListPlugin):
    """amqtt's access control with the option that its own configuration class forgets (0.12.1)."""

    @dataclass
    class Config(TopicAccessControlListPlugin.Config):
        """Topic filters by user."""

        subscribe_acl: dict[str, list[str]] = field(default_factory=dict)
        """Filters that a user may subscribe to."""


class _Subscriptions(dict[str, list[tuple[Session, int]]]):
    """Subscribers by topic filter, which may change while someone goes through them.

    amqtt 0.12.1 awaits in such loops. A client that came or left meanwhile made them fail: a message never
    reached the rest of its subscribers, or a client that was just connecting was dropped.
    """

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(super().__iter__()))

    def items(self) -> ItemsView[str, list[tuple[Session, int]]]:  # type: ignore[override]
        return {topic: list(subscribers) for topic, subscribers in super().items()}.items()


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
    ) -> None:
        self._host = host
        self._requested_port = port
        self._accounts = accounts
        self._tls = tls
        self._stack = AsyncExitStack()
        self.port = port

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            broker = await self._start_broker(stack)
            listener = await self._listen(broker)
            stack.push_async_callback(_close, listener)
            self._stack = stack.pop_all()
        _log.info("embedded MQTT broker listens on %s:%d", self._host, self.port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _start_broker(self, stack: AsyncExitStack) -> Broker:
        # amqtt reads the password file once, when it is built.
        with tempfile.TemporaryDirectory(prefix="rouse-broker-") as folder:
            password_file = Path(folder) / "passwords"
            password_file.touch(mode=0o600)
            hashes = await asyncio.to_thread(self._hash_passwords)
            password_file.write_text(hashes, encoding="utf-8")
            broker = Broker(self._configuration(password_file))
        broker._subscriptions = _Subscriptions()  # noqa: SLF001 - see there
        await broker.start()
        stack.push_async_callback(broker.shutdown)
        return broker

    def _hash_passwords(self) -> str:
        hasher = PasswordHash((Argon2Hasher(),))
        return "".join(f"{name}:{hasher.hash(account.password)}\n" for name, account in self._accounts.items())

    def _configuration(self, password_file: Path) -> BrokerConfig:
        return BrokerConfig(
            listeners={_LISTENER: ListenerConfig(type=ListenerType.EXTERNAL)},
            plugins={
                "amqtt.plugins.authentication.FileAuthPlugin": {"password_file": password_file},
                f"{__name__}.{AccessControl.__name__}": {
                    "publish_acl": {name: list(account.publish) for name, account in self._accounts.items()},
                    "subscribe_acl": {name: list(account.subscribe) for name, account in self._accounts.items()},
                },
            },
        )

    async def _listen(self, broker: Broker) -> asyncio.Server:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            # Small messages must not wait for each other (Nagle's algorithm).
            writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                await broker.external_connected(StreamReaderAdapter(reader), StreamWriterAdapter(writer), _LISTENER)
            except (AMQTTError, OSError) as error:
                _log.warning("embedded MQTT broker: a client was dropped: %s", error)

        try:
            server = await asyncio.start_server(connected, self._host, self._requested_port, ssl=self._tls)
        except OSError as error:
            where = f"{self._host}:{self._requested_port}"
            raise BusConfigurationError(
                f"the embedded MQTT broker can't listen on {where}: {error.strerror}. "
                "Set broker.listen_port to a free port, or broker.url to the broker that runs there."
            ) from error
        self.port = server.sockets[0].getsockname()[1]
        return server


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
