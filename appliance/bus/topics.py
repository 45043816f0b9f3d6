"""Every topic of the bus: how it is built and parsed, what it carries, and how it is sent.

The first two levels are `rouse/v1`; an incompatible change of a message raises the version.
"""

import json
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from appliance.bus.certificate_messages import CertificateAnswer, CertificateRequest, HouseTrust
from appliance.bus.errors import MalformedMessageError
from appliance.bus.messages import (
    AgentAnnouncement,
    ChatCancel,
    ChatRequest,
    ExpertStatus,
    HubAnnouncement,
    NodeAnnouncement,
    NodeTelemetry,
    Presence,
    ReplyMessage,
)
from appliance.bus.pairing_messages import PairedNode, PairingClaim, PairingOffer, PairingResult
from appliance.bus.power_messages import NodeEnergy, NodePower, PlugReading, PowerCommand
from appliance.bus.update_messages import NodeUpdate, UpdateCommand
from appliance.bus.waking_messages import PlugCommand, PlugResult, RepairNotice, WakeHint

ROOT = "rouse/v1"
MAX_PAYLOAD_BYTES = 1_000_000
"""A longer payload is refused unread."""

_MAX_REASON = 300
_PARAMETER = re.compile(r"\{(\w+)\}")
_SLUG = r"[a-z0-9][a-z0-9_-]{0,62}"


@dataclass(frozen=True)
class Topic[M]:
    """A family of topics that carry one type of message.

    `template` names its variable levels in braces; each takes a `Slug`.
    """

    name: str
    template: str
    message: Any
    """The message's type; a union for a stream."""
    sender: Literal["hub", "node", "client"]
    summary: str
    retain: bool = False
    qos: int = 1

    @cached_property
    def _adapter(self) -> TypeAdapter[M]:
        return TypeAdapter(self.message)

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile(_PARAMETER.sub(rf"(?P<\1>{_SLUG})", self.template))

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the variable levels, in order."""
        return tuple(_PARAMETER.findall(self.template))

    @property
    def filter(self) -> str:
        """The MQTT filter that matches every topic of the family."""
        return _PARAMETER.sub("+", self.template)

    def at(self, **levels: str) -> str:
        """Build the topic for these levels.

        Raises:
            ValueError: a level is missing, too many or no slug, so that no input can reach another topic.
        """
        slugs = all(isinstance(level, str) and re.fullmatch(_SLUG, level) for level in levels.values())
        if not slugs or levels.keys() != set(self.parameters):
            msg = f"{self.name}: {levels} do not fit {self.template}"
            raise ValueError(msg)
        return self.template.format_map(levels)

    def parse(self, topic: str) -> dict[str, str] | None:
        """Return the topic's levels by name, or None if it is not of this family."""
        match = self._pattern.fullmatch(topic)
        return match.groupdict() if match else None

    def decode(self, topic: str, payload: bytes) -> M:
        """Validate a received payload.

        Types are exact: no text for a number, no number for a boolean. A repeated key's last value counts.

        Raises:
            MalformedMessageError: it is too long, no JSON, or does not fit the model.
        """
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise MalformedMessageError(topic, f"{len(payload)} bytes, at most {MAX_PAYLOAD_BYTES} are allowed")
        try:
            _require_json(payload)
            return self._adapter.validate_json(payload, strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "payload"
            reason = f"{where}: {first['msg']}"
        except ValueError as error:
            reason = f"payload: not valid JSON: {error}"
        raise MalformedMessageError(topic, _loggable(reason))

    def encode(self, message: M) -> bytes:
        """Serialise a message."""
        return self._adapter.dump_json(message, exclude_none=True)


def _require_json(payload: bytes) -> None:
    """Refuse what is not JSON as RFC 8259 has it, but what pydantic takes: NaN, infinities and 1e999.

    Raises:
        ValueError: with the reason.
    """
    json.dumps(from_json(payload, allow_inf_nan=False), allow_nan=False)


def _loggable(reason: str) -> str:
    """Return one short line: a reason may quote keys and values that a stranger chose."""
    short = reason if len(reason) <= _MAX_REASON else f"{reason[:_MAX_REASON]}…"
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in short)


HUB_STATUS: Topic[Presence] = Topic(
    "hubStatus", f"{ROOT}/hub/status", Presence, "hub", "Whether the hub is there; last will.", retain=True
)
HUB_ANNOUNCEMENT: Topic[HubAnnouncement] = Topic(
    "hubAnnouncement",
    f"{ROOT}/hub/announcement",
    HubAnnouncement,
    "hub",
    "The hub, for discovery.",
    retain=True,
)
NODE_STATUS: Topic[Presence] = Topic(
    "nodeStatus",
    f"{ROOT}/nodes/{{node}}/status",
    Presence,
    "node",
    "Whether a node is there; last will.",
    retain=True,
)
NODE_ANNOUNCEMENT: Topic[NodeAnnouncement] = Topic(
    "nodeAnnouncement",
    f"{ROOT}/nodes/{{node}}/announcement",
    NodeAnnouncement,
    "node",
    "A node, its hardware and its experts.",
    retain=True,
)
NODE_TELEMETRY: Topic[NodeTelemetry] = Topic(
    "nodeTelemetry",
    f"{ROOT}/nodes/{{node}}/telemetry",
    NodeTelemetry,
    "node",
    "How a node is doing.",
    retain=True,
    qos=0,
)
EXPERT_STATUS: Topic[ExpertStatus] = Topic(
    "expertStatus",
    f"{ROOT}/nodes/{{node}}/experts/{{expert}}",
    ExpertStatus,
    "node",
    "An expert, its state and where it answers.",
    retain=True,
)
AGENT_ANNOUNCEMENT: Topic[AgentAnnouncement] = Topic(
    "agentAnnouncement",
    f"{ROOT}/agents/{{agent}}/announcement",
    AgentAnnouncement,
    "hub",
    "An agent that takes chat requests.",
    retain=True,
)
CHAT_REQUEST: Topic[ChatRequest] = Topic(
    "chatRequest", f"{ROOT}/agents/{{agent}}/requests", ChatRequest, "client", "One turn for an agent."
)
CHAT_CANCEL: Topic[ChatCancel] = Topic(
    "chatCancel", f"{ROOT}/agents/{{agent}}/cancellations", ChatCancel, "client", "Stop working on a request."
)
REPLY: Topic[ReplyMessage] = Topic(
    "reply",
    f"{ROOT}/clients/{{client}}/replies",
    ReplyMessage,
    "hub",
    "The replies to a client's requests, streamed.",
)
PAIRING_OFFER: Topic[PairingOffer] = Topic(
    "pairingOffer",
    f"{ROOT}/pairing/{{node}}/offers",
    PairingOffer,
    "hub",
    "A node that waits to be paired.",
    retain=True,
)
PAIRING_CLAIM: Topic[PairingClaim] = Topic(
    "pairingClaim", f"{ROOT}/pairing/{{node}}/claims", PairingClaim, "client", "Pair a node, or let it go."
)
PAIRING_RESULT: Topic[PairingResult] = Topic(
    "pairingResult", f"{ROOT}/pairing/{{node}}/results", PairingResult, "hub", "How a claim went."
)
PAIRED_NODE: Topic[PairedNode] = Topic(
    "pairedNode", f"{ROOT}/pairing/{{node}}/membership", PairedNode, "hub", "A node of this hub.", retain=True
)

NODE_POWER: Topic[NodePower] = Topic(
    "nodePower",
    f"{ROOT}/nodes/{{node}}/power",
    NodePower,
    "node",
    "Whether a node is awake, asleep or off, and what keeps it awake.",
    retain=True,
)
POWER_COMMAND: Topic[PowerCommand] = Topic(
    "powerCommand", f"{ROOT}/nodes/{{node}}/power/commands", PowerCommand, "client", "A wish for a node's power."
)
PLUG_READING: Topic[PlugReading] = Topic(
    "plugReading",
    f"{ROOT}/nodes/{{node}}/power/plug",
    PlugReading,
    "client",
    "What a node's smart plug measures.",
    qos=0,
)
NODE_ENERGY: Topic[NodeEnergy] = Topic(
    "nodeEnergy",
    f"{ROOT}/nodes/{{node}}/energy",
    NodeEnergy,
    "node",
    "What a node uses, and what its sleep has saved.",
    retain=True,
)
HOUSE_TRUST: Topic[HouseTrust] = Topic(
    "houseTrust", f"{ROOT}/hub/trust", HouseTrust, "hub", "The certificate authorities of the house.", retain=True
)
CERTIFICATE_REQUEST: Topic[CertificateRequest] = Topic(
    "certificateRequest",
    f"{ROOT}/nodes/{{node}}/certificate/requests",
    CertificateRequest,
    "node",
    "A node renews its certificate.",
)
CERTIFICATE_ANSWER: Topic[CertificateAnswer] = Topic(
    "certificateAnswer",
    f"{ROOT}/nodes/{{node}}/certificate/answers",
    CertificateAnswer,
    "hub",
    "A node's new certificate.",
)

NODE_UPDATE: Topic[NodeUpdate] = Topic(
    "nodeUpdate",
    f"{ROOT}/nodes/{{node}}/update",
    NodeUpdate,
    "node",
    "The image that a node runs, and what becomes of the next one.",
    retain=True,
)
UPDATE_COMMAND: Topic[UpdateCommand] = Topic(
    "updateCommand", f"{ROOT}/nodes/{{node}}/update/commands", UpdateCommand, "client", "A wish for a node's image."
)
WAKE_HINT: Topic[WakeHint] = Topic(
    "wakeHint", f"{ROOT}/hub/hints", WakeHint, "client", "Something after which an agent is likely to be asked soon."
)
PLUG_COMMAND: Topic[PlugCommand] = Topic(
    "plugCommand", f"{ROOT}/nodes/{{node}}/power/plug/commands", PlugCommand, "hub", "A wish for a node's smart plug."
)
PLUG_RESULT: Topic[PlugResult] = Topic(
    "plugResult",
    f"{ROOT}/nodes/{{node}}/power/plug/results",
    PlugResult,
    "client",
    "What became of a wish for a node's smart plug.",
)
REPAIR_NOTICE: Topic[RepairNotice] = Topic(
    "repairNotice",
    f"{ROOT}/nodes/{{node}}/repair",
    RepairNotice,
    "hub",
    "A node that is missed and could not be brought back.",
    retain=True,
)

ALL: tuple[Topic[Any], ...] = (
    HUB_STATUS,
    HUB_ANNOUNCEMENT,
    NODE_STATUS,
    NODE_ANNOUNCEMENT,
    NODE_TELEMETRY,
    EXPERT_STATUS,
    AGENT_ANNOUNCEMENT,
    CHAT_REQUEST,
    CHAT_CANCEL,
    REPLY,
    NODE_POWER,
    POWER_COMMAND,
    PLUG_READING,
    NODE_ENERGY,
    NODE_UPDATE,
    UPDATE_COMMAND,
    WAKE_HINT,
    PLUG_COMMAND,
    PLUG_RESULT,
    REPAIR_NOTICE,
    PAIRING_OFFER,
    PAIRING_CLAIM,
    PAIRING_RESULT,
    PAIRED_NODE,
    HOUSE_TRUST,
    CERTIFICATE_REQUEST,
    CERTIFICATE_ANSWER,
)
