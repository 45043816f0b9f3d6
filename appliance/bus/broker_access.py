"""Who may use the embedded broker, and for what: accounts that may come and go while it runs.

amqtt 0.12.1 checks neither the topic of a last will nor who takes over a session by its name, and sends all retained
messages that anybody subscribed to to whoever connects. What is here closes that, so that an account sees its own
topics only.
"""

import asyncio
import hmac
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from amqtt.adapters import ReaderAdapter, WriterAdapter
from amqtt.broker import Broker
from amqtt.contexts import Action
from amqtt.errors import AMQTTError, MQTTError, NoDataError
from amqtt.mqtt.connack import NOT_AUTHORIZED, ConnackPacket
from amqtt.mqtt.protocol.broker_handler import BrokerProtocolHandler
from amqtt.plugins.base import BaseAuthPlugin, BaseTopicPlugin
from amqtt.session import Session
from amqtt.utils import gen_client_id

_log = logging.getLogger(__name__)

LISTENER = "default"
_RENEWED = (
    "will_flag",
    "will_message",
    "will_topic",
    "will_qos",
    "will_retain",
    "keep_alive",
    "password",
    "ssl_object",
)
"""What a session that goes on takes from its new connection."""

type Accepts = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Account:
    """A user of the broker, the topic filters it may use, and what else it must show."""

    password: str | Accepts = field(repr=False)
    """The password, or what tells whether one is right; that may block."""
    publish: tuple[str, ...] = ("#",)
    subscribe: tuple[str, ...] = ("#",)
    certificate: bool = False
    """Whether it must come with a certificate whose common name is the user's."""
    client: str | None = None
    """The only client identifier it may use; any when None."""

    def accepts(self, password: str) -> bool:
        """Whether a password is right."""
        if callable(self.password):
            return self.password(password)
        return hmac.compare_digest(password.encode(), self.password.encode())


class Gatekeeper(BaseAuthPlugin, BaseTopicPlugin):
    """amqtt's questions, answered from the accounts as they are at that moment."""

    @dataclass
    class Config:
        """Accounts by user."""

        accounts: Any = field(default_factory=dict)

    @property
    def _accounts(self) -> Mapping[str, Account]:
        found: Mapping[str, Account] = self.config.accounts
        return found

    async def authenticate(self, *, session: Session) -> bool:
        """Whether a client may connect."""
        account = self._accounts.get(session.username or "")
        if account is None or not await asyncio.to_thread(account.accepts, session.password or ""):
            return False
        if account.certificate and _certified_name(session) != session.username:
            _log.warning("%s: user %r comes without its own certificate", session.remote_address, session.username)
            return False
        if account.client is not None and session.client_id != account.client:
            _log.warning("user %r may not call its client %.80r", session.username, session.client_id)
            return False
        if session.will_flag and not is_allowed(session.will_topic or "", account.publish):
            _log.warning("user %r may not have a last will at %.200r", session.username, session.will_topic)
            return False
        return True

    async def topic_filtering(
        self, *, session: Session | None = None, topic: str | None = None, action: Action | None = None
    ) -> bool:
        """Whether a client may publish, subscribe to or receive something."""
        account = self._accounts.get((session.username or "") if session is not None else "")
        if account is None or not topic:
            return False
        return is_allowed(topic, account.publish if action == Action.PUBLISH else account.subscribe)


class StrictBroker(Broker):
    """amqtt, which asks who a client is before it does anything for it."""

    async def _initialize_client_session(
        self, reader: ReaderAdapter, writer: WriterAdapter, remote_address: str, remote_port: int
    ) -> tuple[BrokerProtocolHandler, Session]:
        try:
            handler, session = await BrokerProtocolHandler.init_from_connect(reader, writer, self.plugins_manager)
        except (MQTTError, NoDataError) as error:
            await writer.close()
            raise AMQTTError(f"{remote_address}:{remote_port}: no MQTT connection: {error}") from error
        found, _ = self._sessions.get(session.client_id or "", (None, None))
        foreign = found is not None and found.username != session.username
        taken = found is not None and foreign and found.transitions.is_connected()
        if taken or not await super()._authenticate(session, self.listeners_config[LISTENER]):
            await ConnackPacket.build(0, NOT_AUTHORIZED).to_stream(writer)
            await writer.close()
            raise AMQTTError(f"{remote_address}:{remote_port}: user {session.username!r} is refused")
        if session.keep_alive > 0:
            session.keep_alive += self.config.get("timeout-disconnect-delay", 0) or 0
        session.client_id = session.client_id or gen_client_id()
        session.parent = 0
        if session.clean_session or found is None or foreign:
            await self._delete_session(session.client_id)
            return handler, session
        for name in _RENEWED:
            setattr(found, name, getattr(session, name))
        found.parent = 1
        return handler, found

    async def _authenticate(self, _session: Session, _listener: object) -> bool:
        return True  # who comes here was let in above

    async def _publish_retained_messages_for_subscription(
        self, subscription: tuple[str, int], session: Session
    ) -> None:
        if any(subscriber is session for subscriber, _ in self._subscriptions.get(subscription[0], [])):
            await super()._publish_retained_messages_for_subscription(subscription, session)


def is_allowed(wanted: str, allowed: tuple[str, ...]) -> bool:
    """Whether a topic, or everything that a filter matches, is within one of the allowed filters."""
    return any(_covers(one, wanted) for one in allowed)


def _covers(allowed: str, wanted: str) -> bool:
    for ours, theirs in zip_longest(allowed.split("/"), wanted.split("/")):
        if ours == "#":
            return True
        if ours is None or theirs is None or theirs == "#":
            return False
        if ours not in {"+", theirs}:
            return False
    return True


def _certified_name(session: Session) -> str | None:
    """Return the common name of the certificate that TLS has verified."""
    certificate = session.ssl_object.getpeercert() if session.ssl_object is not None else None
    subject: Sequence[Sequence[tuple[str, str]]] = (certificate or {}).get("subject", ())  # type: ignore[assignment]
    names = [value for part in subject for key, value in part if key == "commonName"]
    return names[0] if len(names) == 1 else None
