"""One connection to the broker, which mends itself.

State that must outlive the broker (presence, announcements) is kept here and sent again after each
reconnection, because the embedded broker forgets retained messages when it restarts.
"""

import asyncio
import contextlib
import logging
import random
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import aiomqtt
from paho.mqtt.reasoncodes import ReasonCode
from prometheus_client import CollectorRegistry

from appliance.bus.connection import Connection
from appliance.bus.errors import BusConfigurationError, BusUnavailableError, MalformedMessageError
from appliance.bus.messages import Presence
from appliance.bus.metrics import BusMetrics
from appliance.bus.topics import Topic

_log = logging.getLogger(__name__)

FIRST_RETRY_SECONDS = 0.25
LAST_RETRY_SECONDS = 15.0
STEADY_SECONDS = 10.0
"""A connection that lasted this long was good: the next loss starts the back-off anew."""
SUSPICIOUS_LOSSES = 4
"""Connections in a row that were lost soon before the log names the likely reason."""
MAX_REMEMBERED_TOPICS = 10_000
PUBLISH_TIMEOUT_SECONDS = 10.0
GOODBYE_SECONDS = 2.0
REFUSED = 0x80
"""Lowest code of a refused subscription (MQTT 3.1.1, section 3.9.3)."""
BAD_CREDENTIALS = frozenset({0x86, 0x87})
"""Bad user name or password, and not authorized; paho translates MQTT 3.1.1's codes to these of MQTT 5."""

type Handler[M] = Callable[[M | None, Mapping[str, str]], Awaitable[None]]
"""Takes a message, or None where a retained one was withdrawn, and the topic's levels. It must return
soon: messages are handled one after another, in the order in which they came."""


@dataclass(frozen=True, slots=True)
class _Subscription:
    topic: Topic[Any]
    handler: Handler[Any]
    filter: str


class Bus:
    """A client of the bus: an async context manager that connects in the background.

    Subscriptions are made before it is entered. `presence` names the topic on which this client is
    announced as online, and as offline by its last will or when it leaves.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        identifier: str,
        presence: tuple[Topic[Presence], Mapping[str, str]] | None = None,
        metrics: BusMetrics | None = None,
    ) -> None:
        self._connection = connection
        self._metrics = metrics or BusMetrics(CollectorRegistry())
        self._identifier = identifier
        self._presence_topic: str | None = None
        self._kept: dict[str, tuple[bytes, int]] = {}
        if presence is not None:
            topic, levels = presence
            self._presence_topic = topic.at(**levels)
            self._kept[self._presence_topic] = (topic.encode(Presence(state="online")), topic.qos)
            self._gone = topic.encode(Presence(state="offline"))
        self._subscriptions: list[_Subscription] = []
        self._malformed: set[str] = set()
        self._client: aiomqtt.Client | None = None
        self._connected = asyncio.Event()
        self._lost = asyncio.Event()
        """Set when the connection that `_client` is for has ended."""
        self._beginning = False
        """Whether a connection is being introduced: subscriptions, and what is kept."""
        self._wanted = asyncio.Event()
        """Cleared while this client stays away on purpose."""
        self._wanted.set()
        self._away = asyncio.Event()
        """Set when the connection was given up because of that."""
        self._renew = asyncio.Event()
        """Set to give up the connection, or the pause before the next one."""
        self._task: asyncio.Task[None] | None = None

    def subscribe[M](self, topic: Topic[M], handler: Handler[M], **levels: str) -> None:
        """Call `handler` with each message of a family of topics; `levels` narrows it to some."""
        narrowed = topic.template
        for name in topic.parameters:
            narrowed = narrowed.replace(f"{{{name}}}", levels.get(name, "+"))
        self._subscriptions.append(_Subscription(topic, handler, narrowed))

    @property
    def connected(self) -> bool:
        """Whether the broker is reachable at this moment."""
        return self._connected.is_set()

    async def wait_connected(self, timeout: float) -> None:  # noqa: ASYNC109
        """Wait until the broker is reachable and all subscriptions are made.

        Raises:
            BusUnavailableError: it was not within `timeout` seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                await self._connected.wait()
        except TimeoutError as error:
            raise BusUnavailableError(f"no MQTT broker answers at {self._where}") from error

    async def refused(self) -> None:
        """Wait until the broker turns out to refuse this client for good; most often that is for ever.

        Only a client that has never been let in gives up: later refusals may end by themselves.

        Raises:
            BusConfigurationError: the credentials or the certificate are wrong.
        """
        if self._task is None:
            raise RuntimeError("the bus has not been entered")
        await asyncio.shield(self._task)

    async def publish[M](
        self,
        topic: Topic[M],
        message: M,
        *,
        timeout: float = PUBLISH_TIMEOUT_SECONDS,  # noqa: ASYNC109
        **levels: str,
    ) -> None:
        """Send a message and wait until the broker has it, across a reconnection if need be.

        A message may arrive twice after a reconnection (at least once, as MQTT's QoS 1 has it).

        Raises:
            BusUnavailableError: the broker did not take it within `timeout` seconds.
        """
        await self._send(topic.at(**levels), topic.encode(message), topic.qos, retain=topic.retain, timeout=timeout)

    async def keep[M](self, topic: Topic[M], message: M, **levels: str) -> None:
        """Publish retained state now or on the next connection, and again after each reconnection."""
        name = topic.at(**levels)
        self._kept[name] = (topic.encode(message), topic.qos)
        await self._offer(name, *self._kept[name])

    async def withdraw(self, topic: Topic[Any], **levels: str) -> None:
        """Remove retained state that `keep` or an earlier process published."""
        name = topic.at(**levels)
        self._kept.pop(name, None)
        await self._offer(name, b"", topic.qos)

    async def leave(self, timeout: float) -> bool:  # noqa: ASYNC109
        """Say goodbye and stay away until `come_back`; whether that was done within `timeout` seconds.

        For a machine that is about to sleep: nothing is sent meanwhile, and what is kept is sent afterwards.
        """
        self._away.clear()
        self._wanted.clear()
        self._renew.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._away.wait()
        return self._away.is_set()

    def come_back(self) -> None:
        """Connect anew at once, also when there seems to be a connection: after a sleep it may be a dead one."""
        self._wanted.set()
        self._renew.set()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name=f"bus {self._identifier}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._beginning:  # some of it is said already, and must not be left standing
            with contextlib.suppress(BusUnavailableError):
                await self.wait_connected(GOODBYE_SECONDS)
        if self._presence_topic is not None and self.connected:
            with contextlib.suppress(BusUnavailableError):
                await self._send(self._presence_topic, self._gone, 1, retain=True, timeout=GOODBYE_SECONDS)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _offer(self, name: str, payload: bytes, qos: int) -> None:
        if self.connected:
            with contextlib.suppress(BusUnavailableError):
                await self._send(name, payload, qos, retain=True, timeout=PUBLISH_TIMEOUT_SECONDS)

    async def _send(self, name: str, payload: bytes, qos: int, *, retain: bool, timeout: float) -> None:  # noqa: ASYNC109
        try:
            async with asyncio.timeout(timeout):
                while True:
                    await self._connected.wait()
                    client = self._client
                    if client is not None and await self._try_to_send(client, name, payload, qos, retain=retain):
                        self._metrics.sent.inc()
                        return
                    await asyncio.sleep(FIRST_RETRY_SECONDS / 5)
        except TimeoutError as error:
            self._metrics.unsent.inc()
            raise BusUnavailableError(f"the MQTT broker did not take a message within {timeout:g} s") from error

    async def _try_to_send(self, client: aiomqtt.Client, name: str, payload: bytes, qos: int, *, retain: bool) -> bool:
        """Return whether the broker has taken a message; False as soon as the connection is lost.

        aiomqtt would wait for the acknowledgement on a connection that is no more.
        """
        publishing = asyncio.create_task(client.publish(name, payload, qos=qos, retain=retain, timeout=float("inf")))
        lost = asyncio.create_task(self._lost.wait())
        try:
            await asyncio.wait([publishing, lost], return_when=asyncio.FIRST_COMPLETED)
            if publishing.done():
                publishing.result()
        except aiomqtt.MqttError as error:
            _log.debug("publish to %s failed: %s", name, error)
            return False
        else:
            return publishing.done()
        finally:
            publishing.cancel()
            lost.cancel()

    async def _run(self) -> None:
        delay = FIRST_RETRY_SECONDS
        reported = ""
        losses = 0
        known = False
        loop = asyncio.get_running_loop()
        while True:
            since = None
            await self._until_wanted()
            try:
                async with self._new_client() as client:
                    self._beginning = True
                    await self._begin(client)
                    self._beginning = False
                    _log.info("connected to the MQTT broker at %s", self._where)
                    since, reported, known = loop.time(), "", True
                    self._metrics.connections.inc()
                    await self._receive(client)
                    if not self._wanted.is_set():
                        await self._say_goodbye(client)
            except (aiomqtt.MqttError, OSError) as error:
                if not known and (refusal := _refusal(error)):
                    raise BusConfigurationError(f"the MQTT broker at {self._where} {refusal}") from error
                if str(error) != reported:
                    reported = str(error)
                    _log.warning("MQTT broker at %s: %s; trying again", self._where, reported)
            finally:
                self._beginning = False
                self._connected.clear()
                self._metrics.connected.set(0)
                self._lost.set()
                self._client = None
            if since is not None:
                steady = loop.time() - since >= STEADY_SECONDS
                losses = 0 if steady or self._renew.is_set() else losses + 1
                delay = FIRST_RETRY_SECONDS if steady else delay
            if losses == SUSPICIOUS_LOSSES:
                _log.error(
                    "the MQTT broker drops %s soon after each connection: is there another of that name? "
                    "Give each machine its own node.name.",
                    self._identifier,
                )
            if await self._renewed_within(delay * random.uniform(0.5, 1)):  # noqa: S311
                delay = FIRST_RETRY_SECONDS
            else:
                delay = min(delay * 2, LAST_RETRY_SECONDS)

    async def _until_wanted(self) -> None:
        if not self._wanted.is_set():
            self._away.set()
            await self._wanted.wait()
        self._renew.clear()

    async def _say_goodbye(self, client: aiomqtt.Client) -> None:
        """Publish that this client is gone, unless it is wanted again before the broker has taken it."""
        if self._presence_topic is None:
            return
        saying = asyncio.create_task(client.publish(self._presence_topic, self._gone, qos=1, retain=True))
        wanted = asyncio.create_task(self._wanted.wait())
        try:
            await asyncio.wait([saying, wanted], return_when=asyncio.FIRST_COMPLETED)
            if saying.done():
                saying.result()
        finally:
            saying.cancel()
            wanted.cancel()

    async def _renewed_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._renew.wait()
        except TimeoutError:
            return False
        return True

    @property
    def _where(self) -> str:
        return f"{self._connection.host}:{self._connection.port}"

    def _new_client(self) -> aiomqtt.Client:
        will = None
        if self._presence_topic is not None:
            will = aiomqtt.Will(self._presence_topic, self._gone, qos=1, retain=True)
        return aiomqtt.Client(
            self._connection.host,
            self._connection.port,
            username=self._connection.username,
            password=self._connection.password,
            tls_context=self._connection.tls,
            identifier=self._identifier,
            will=will,
            keepalive=20,
            logger=logging.getLogger(f"{__name__}.paho"),
        )

    async def _begin(self, client: aiomqtt.Client) -> None:
        for subscription in self._subscriptions:
            granted = await client.subscribe(subscription.filter, qos=subscription.topic.qos)
            if any(code >= REFUSED for code in map(_code, granted)):
                _log.error("the MQTT broker refuses user %r %s", self._connection.username, subscription.filter)
        sent: dict[str, tuple[bytes, int]] = {}
        while unsent := {name: kept for name, kept in self._kept.items() if sent.get(name) != kept}:
            for name, (payload, qos) in unsent.items():  # what is kept may change meanwhile
                await client.publish(name, payload, qos=qos, retain=True)
            sent |= unsent
        self._client = client
        self._lost = asyncio.Event()
        self._connected.set()
        self._metrics.connected.set(1)

    async def _receive(self, client: aiomqtt.Client) -> None:
        """Handle messages until the connection is lost, which raises MqttError, or is to be renewed."""

        async def handle() -> None:
            async for message in client.messages:
                payload = message.payload if isinstance(message.payload, bytes) else b""
                await self._dispatch(message.topic.value, payload)

        handling = asyncio.create_task(handle(), name=f"messages of {self._identifier}")
        renewing = asyncio.create_task(self._renew.wait(), name=f"renewal of {self._identifier}")
        try:
            await asyncio.wait([handling, renewing], return_when=asyncio.FIRST_COMPLETED)
            if handling.done():
                handling.result()
        finally:
            handling.cancel()
            renewing.cancel()
            await asyncio.gather(handling, renewing, return_exceptions=True)

    async def _dispatch(self, name: str, payload: bytes) -> None:
        for subscription in self._subscriptions:
            levels = subscription.topic.parse(name)
            if levels is None or not aiomqtt.Topic(name).matches(subscription.filter):
                continue
            try:
                withdrawn = subscription.topic.retain and not payload
                message = None if withdrawn else subscription.topic.decode(name, payload)
                self._metrics.received.labels(subscription.topic.name).inc()
                await subscription.handler(message, levels)
            except MalformedMessageError as error:
                self._report_malformed(error)
            except Exception:  # noqa: BLE001 - one bad handler must not end the connection
                _log.exception("handling a message on %s failed", name)

    def _report_malformed(self, error: MalformedMessageError) -> None:
        self._metrics.malformed.inc()
        if error.topic in self._malformed or len(self._malformed) >= MAX_REMEMBERED_TOPICS:
            _log.debug("dropped a malformed message: %s", error)
            return
        self._malformed.add(error.topic)
        _log.warning("dropped a malformed message (further ones on this topic are not logged): %s", error)


def _refusal(error: Exception) -> str | None:
    """Return why trying again is no use, or None if it may be."""
    if isinstance(error, aiomqtt.MqttCodeError) and isinstance(error.rc, ReasonCode):
        if error.rc.value in BAD_CREDENTIALS:
            return "refuses the user or the password: check broker.username and broker.password_file"
    elif isinstance(error.__context__, ssl.SSLCertVerificationError):
        reason = error.__context__.verify_message
        return f"has a certificate that can't be trusted ({reason}): check broker.ca_file"
    return None


def _code(granted: int | ReasonCode) -> int:
    return granted if isinstance(granted, int) else granted.value
