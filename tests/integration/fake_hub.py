"""A hub and a broker that tests script, on Home Assistant's MQTT client."""

import asyncio
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from homeassistant.components import mqtt
from homeassistant.components.mqtt.const import MQTT_PROCESSED_SUBSCRIPTIONS
from homeassistant.config_entries import ConfigEntry
from homeassistant.core import HomeAssistant, callback
from homeassistant.helpers import device_registry as dr
from homeassistant.helpers.dispatcher import async_dispatcher_send
from pytest_homeassistant_custom_component.common import async_fire_mqtt_message
from pytest_homeassistant_custom_component.typing import MqttMockHAClient

from custom_components.rouse.const import DOMAIN

GOLDEN = Path(__file__).parents[1] / "contract" / "messages"
SENT = {path.stem for path in GOLDEN.glob("chat_*.json")} | {
    "plug_reading",
    "plug_result",
    "power_command_wake",
    "update_command",
    "wake_hint",
}
PAIRING = {path.stem for pattern in ("paired_*", "pairing_*") for path in GOLDEN.glob(f"{pattern}.json")}
CERTIFICATES = {path.stem for path in GOLDEN.glob("certificate_*.json")} | {"house_trust"}
BETWEEN_HUB_AND_NODES = PAIRING | CERTIFICATES | {"power_command", "power_command_stay_off"}
"""What the integration neither sends nor reads yet."""
READ = {path.stem for path in GOLDEN.glob("*.json")} - SENT - BETWEEN_HUB_AND_NODES
AGENT = "conversation.rouse_home"

type Answer = Callable[[dict[str, Any]], Iterable[dict[str, Any]]]


def golden(name: str) -> dict[str, Any]:
    """Return a golden message: its topic and its payload."""
    message: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text())
    return message


def text(piece: str) -> dict[str, Any]:
    return {"kind": "text", "text": piece}


def tool_call(call_id: str, tool: str, /, **arguments: Any) -> dict[str, Any]:
    return {"kind": "tool_call", "call": {"id": call_id, "name": tool, "arguments": arguments}}


def finished(whole: str, *calls: dict[str, Any]) -> dict[str, Any]:
    return {
        "kind": "finished",
        "text": whole,
        "tool_calls": [call["call"] for call in calls],
        "reason": "tool_calls" if calls else "stop",
        "expert": "small",
    }


def failed(code: str) -> dict[str, Any]:
    return {"kind": "failed", "code": code, "message": "Something for the log."}


class FakeHub:
    """Speaks and listens on Home Assistant's MQTT client like a hub would through the broker."""

    def __init__(self, hass: HomeAssistant) -> None:
        self.requests: list[dict[str, Any]] = []
        """Every request as it arrived, repeated ones included."""
        self.cancelled: list[str] = []
        self.answers: list[Answer] = []
        """How to answer the next requests; a repeated one gets no answer."""
        self._hass = hass
        self._seen: set[str] = set()
        self._arrived = asyncio.Condition()

    async def start(self) -> None:
        await mqtt.async_subscribe(self._hass, "rouse/v1/agents/+/requests", self._requested)
        await mqtt.async_subscribe(self._hass, "rouse/v1/agents/+/cancellations", self._cancelled)

    def say(self, topic: str, payload: Any, *, retain: bool = True) -> None:
        raw = payload if isinstance(payload, bytes | str) else json.dumps(payload)
        async_fire_mqtt_message(self._hass, topic, raw, qos=1, retain=retain)

    def say_golden(self, message_name: str, /, **changes: Any) -> None:
        message = golden(message_name)
        self.say(message["topic"], {**message["payload"], **changes}, retain=False)

    def come(self) -> None:
        self.say_golden("hub_announcement")
        self.say_golden("hub_status")
        self.say_golden("agent_announcement")

    def add_node(self) -> None:
        self.say_golden("node_announcement")
        self.say_golden("node_status", state="online")
        self.say_golden("node_telemetry")
        self.say_golden("node_power_awake")
        self.say_golden("node_energy")
        self.say_golden("expert_status_ready")

    def go(self) -> None:
        self.say_golden("hub_status", state="offline")

    def reply(self, request: dict[str, Any], seq: int, message: dict[str, Any]) -> None:
        payload = {"id": request["id"], "seq": seq, **message}
        self.say(f"rouse/v1/clients/{request['client']}/replies", payload, retain=False)

    def will_say(self, *messages: dict[str, Any], order: Iterable[int] | None = None) -> None:
        """Answer the next request with messages in sequence, or with those of the given numbers."""
        numbers = range(len(messages)) if order is None else order
        self.answers.append(lambda _: [{"seq": seq, **messages[seq]} for seq in numbers])

    async def wait_for_requests(self, count: int) -> None:
        """Wait until so many requests, repeated ones included, have arrived."""
        async with asyncio.timeout(5), self._arrived:
            await self._arrived.wait_for(lambda: len(self.requests) >= count)

    async def _requested(self, message: mqtt.ReceiveMessage) -> None:
        request = json.loads(message.payload)
        async with self._arrived:
            self.requests.append(request)
            self._arrived.notify_all()
        if request["id"] in self._seen or not self.answers:
            return
        self._seen.add(request["id"])
        for reply in self.answers.pop(0)(request):
            self.reply(request, reply["seq"], reply)

    @callback
    def _cancelled(self, message: mqtt.ReceiveMessage) -> None:
        self.cancelled.append(json.loads(message.payload)["id"])


class Broker:
    """The connection to the broker, which a test cuts and restores."""

    def __init__(self, hass: HomeAssistant, client: MqttMockHAClient) -> None:
        self._hass = hass
        self._client = client

    def disconnect(self) -> None:
        self._client.connected = False
        async_dispatcher_send(self._hass, mqtt.MQTT_CONNECTION_STATE, False)

    def connect(self) -> None:
        self._client.connected = True
        async_dispatcher_send(self._hass, mqtt.MQTT_CONNECTION_STATE, True)

    def resubscribe(self, client: str) -> None:
        """Confirm the subscription to a client's replies, as after a reconnection."""
        replies = (f"rouse/v1/clients/{client}/replies", 1)
        async_dispatcher_send(self._hass, MQTT_PROCESSED_SUBSCRIPTIONS, [replies])


def device(hass: HomeAssistant, entry: ConfigEntry, identifier: str) -> dr.DeviceEntry | None:
    """Find a device of the integration."""
    return dr.async_get(hass).async_get_device_by_identifier((DOMAIN, identifier), entry.entry_id)
