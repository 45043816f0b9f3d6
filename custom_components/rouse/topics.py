"""The bus topics that the integration reads and writes, and how their payloads are decoded."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import probatio
from homeassistant.util.json import JSON_DECODE_EXCEPTIONS, json_loads

from .messages import (
    SLUG,
    AgentAnnouncement,
    ExpertStatus,
    HubAnnouncement,
    NodeAnnouncement,
    NodeEnergy,
    NodePower,
    NodeTelemetry,
    NodeUpdate,
    PlugCommand,
    Presence,
    RepairNotice,
    Reply,
    ReplyFailed,
    ReplyFinished,
    ReplyText,
    ReplyToolCall,
    ReplyUnknown,
)

ROOT = "rouse/v1"
MAX_PAYLOAD_BYTES = 1_000_000
"""A longer payload is refused unread, here and by the hub."""

_LEVEL = re.compile(r"\{(\w+)\}")


class MalformedPayloadError(ValueError):
    """A payload does not fit its topic."""


@dataclass(frozen=True, eq=False)
class Topic[M]:
    """A family of topics that carry one type of message; `template` names the variable levels."""

    template: str
    read: Callable[[Any], M]

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile(_LEVEL.sub(rf"(?P<\1>{SLUG})", self.template))

    def levels(self, topic: str) -> dict[str, str] | None:
        """Return the topic's variable levels by name, or None if it is not of this family."""
        match = self._pattern.fullmatch(topic)
        return match.groupdict() if match else None

    def at(self, **levels: str) -> str:
        """Build a topic."""
        return self.template.format_map(levels)

    def decode(self, payload: bytes | bytearray | str, levels: dict[str, str]) -> M:
        """Validate a received payload.

        Raises:
            MalformedPayloadError: it is too long, no JSON, does not fit the message's type, or is
                about something else than its topic.
        """
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise MalformedPayloadError(f"{len(payload)} bytes, at most {MAX_PAYLOAD_BYTES} are allowed")
        try:
            message = self.read(json_loads(payload))
        except JSON_DECODE_EXCEPTIONS as error:
            raise MalformedPayloadError(f"no JSON: {error}") from error
        except probatio.Invalid as error:
            raise MalformedPayloadError(str(error)) from error
        for name, value in levels.items():
            if getattr(message, name, value) != value:
                raise MalformedPayloadError(f"{name} is not {value}, as in the topic")
        return message


def _schema(message: type) -> Callable[[Any], Any]:
    return probatio.create_dataclass_schema(message, extra=probatio.REMOVE_EXTRA)


_read_unknown_reply = _schema(ReplyUnknown)
_REPLIES = {
    "text": _schema(ReplyText),
    "tool_call": _schema(ReplyToolCall),
    "finished": _schema(ReplyFinished),
    "failed": _schema(ReplyFailed),
}


def _read_reply(data: Any) -> Reply:
    kind = data.get("kind") if isinstance(data, dict) else None
    read = _REPLIES.get(kind, _read_unknown_reply) if isinstance(kind, str) else _read_unknown_reply
    reply: Reply = read(data)
    return reply


HUB_STATUS: Topic[Presence] = Topic(f"{ROOT}/hub/status", _schema(Presence))
HUB_ANNOUNCEMENT: Topic[HubAnnouncement] = Topic(f"{ROOT}/hub/announcement", _schema(HubAnnouncement))
NODE_STATUS: Topic[Presence] = Topic(f"{ROOT}/nodes/{{node}}/status", _schema(Presence))
NODE_ANNOUNCEMENT: Topic[NodeAnnouncement] = Topic(f"{ROOT}/nodes/{{node}}/announcement", _schema(NodeAnnouncement))
NODE_TELEMETRY: Topic[NodeTelemetry] = Topic(f"{ROOT}/nodes/{{node}}/telemetry", _schema(NodeTelemetry))
NODE_UPDATE: Topic[NodeUpdate] = Topic(f"{ROOT}/nodes/{{node}}/update", _schema(NodeUpdate))
EXPERT_STATUS: Topic[ExpertStatus] = Topic(f"{ROOT}/nodes/{{node}}/experts/{{expert}}", _schema(ExpertStatus))
NODE_ENERGY: Topic[NodeEnergy] = Topic(f"{ROOT}/nodes/{{node}}/energy", _schema(NodeEnergy))
NODE_POWER: Topic[NodePower] = Topic(f"{ROOT}/nodes/{{node}}/power", _schema(NodePower))
PLUG_COMMAND: Topic[PlugCommand] = Topic(f"{ROOT}/nodes/{{node}}/power/plug/commands", _schema(PlugCommand))
REPAIR_NOTICE: Topic[RepairNotice] = Topic(f"{ROOT}/nodes/{{node}}/repair", _schema(RepairNotice))
AGENT_ANNOUNCEMENT: Topic[AgentAnnouncement] = Topic(
    f"{ROOT}/agents/{{agent}}/announcement", _schema(AgentAnnouncement)
)
REPLY: Topic[Reply] = Topic(f"{ROOT}/clients/{{client}}/replies", _read_reply)

READ: tuple[Topic[Any], ...] = (
    HUB_STATUS,
    HUB_ANNOUNCEMENT,
    NODE_STATUS,
    NODE_ANNOUNCEMENT,
    NODE_TELEMETRY,
    NODE_UPDATE,
    EXPERT_STATUS,
    NODE_ENERGY,
    NODE_POWER,
    PLUG_COMMAND,
    REPAIR_NOTICE,
    AGENT_ANNOUNCEMENT,
    REPLY,
)

STATE_FILTERS = (f"{ROOT}/hub/+", f"{ROOT}/nodes/#", f"{ROOT}/agents/+/announcement")
"""Few and wide: Home Assistant debounces subscriptions."""


def requests(agent: str) -> str:
    """Return the topic on which an agent takes requests."""
    return f"{ROOT}/agents/{agent}/requests"


def cancellations(agent: str) -> str:
    """Return the topic on which an agent's requests are cancelled."""
    return f"{ROOT}/agents/{agent}/cancellations"


def update_commands(node: str) -> str:
    """Return the topic on which a node is asked to update."""
    return f"{ROOT}/nodes/{node}/update/commands"


def power_commands(node: str) -> str:
    """Return the topic on which a node, and the hub for it, takes commands."""
    return f"{ROOT}/nodes/{node}/power/commands"


def plug_results(node: str) -> str:
    """Return the topic on which the hub hears what became of a plug command."""
    return f"{ROOT}/nodes/{node}/power/plug/results"


def plug_readings(node: str) -> str:
    """Return the topic on which a node hears what its plug measures."""
    return f"{ROOT}/nodes/{node}/power/plug"


HINTS = f"{ROOT}/hub/hints"
"""On which the hub takes hints."""
