"""Chat requests and their replies over MQTT."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from homeassistant.components import mqtt
from homeassistant.core import HomeAssistant, callback
from homeassistant.exceptions import HomeAssistantError
from homeassistant.helpers.json import json_bytes

from . import topics
from .chat import Event, Inbox
from .errors import ChatError
from .messages import ChatCancel, ChatRequest, Reply

_LOGGER = logging.getLogger(__name__)


class ChatLink:
    """Publishes requests and hands each reply to the request it belongs to."""

    def __init__(self, hass: HomeAssistant, client: str, trouble: Callable[[], str | None]) -> None:
        self.client = client
        """Names the topic on which the replies arrive."""
        self._hass = hass
        self._trouble = trouble
        self._inboxes: dict[str, Inbox] = {}

    @property
    def trouble(self) -> str | None:
        """Why no answer can be expected, as a `ChatError`'s reason, or None."""
        return self._trouble()

    @property
    def pending(self) -> int:
        """How many requests wait for their answers."""
        return len(self._inboxes)

    @contextmanager
    def open(self, request_id: str) -> Iterator[Inbox]:
        """Collect a request's replies."""
        inbox = self._inboxes[request_id] = Inbox()
        try:
            yield inbox
        finally:
            del self._inboxes[request_id]

    @callback
    def deliver(self, reply: Reply) -> None:
        """Hand a reply to its request."""
        if inbox := self._inboxes.get(reply.id):
            inbox.put_nowait(reply)
        else:
            _LOGGER.debug("Nobody waits for reply %s to request %s", reply.seq, reply.id)

    @callback
    def notify(self, event: Event) -> None:
        """Tell every open request what happened."""
        for inbox in self._inboxes.values():
            inbox.put_nowait(event)

    async def send(self, agent: str, request: ChatRequest) -> None:
        """Publish a request.

        Raises:
            ChatError: it is too long, or the broker is not there.
        """
        try:
            payload = json_bytes(request)
        except TypeError as error:
            _LOGGER.warning("The conversation can't be written as JSON: %s", error)
            raise ChatError("request_not_json") from error
        if len(payload) > topics.MAX_PAYLOAD_BYTES:
            raise ChatError("request_too_large")
        try:
            await mqtt.async_publish(self._hass, topics.requests(agent), payload, qos=1)
        except HomeAssistantError as error:
            raise ChatError("mqtt_disconnected") from error

    @callback
    def repeat(self, agent: str, request: ChatRequest) -> None:
        """Publish a request again, unless the broker is not there."""
        self._publish_soon(topics.requests(agent), request)

    @callback
    def cancel(self, agent: str, request: ChatRequest) -> None:
        """Tell the agent that nobody waits any more, unless the broker is not there."""
        self._publish_soon(topics.cancellations(agent), ChatCancel(request.id, request.client))

    def _publish_soon(self, topic: str, message: ChatRequest | ChatCancel) -> None:
        if mqtt.is_connected(self._hass):
            self._hass.async_create_background_task(self._publish(topic, message), f"rouse {topic} {message.id}")

    async def _publish(self, topic: str, message: ChatRequest | ChatCancel) -> None:
        try:
            await mqtt.async_publish(self._hass, topic, json_bytes(message), qos=1)
        except HomeAssistantError as error:
            _LOGGER.debug("Could not publish on %s: %s", topic, error)
