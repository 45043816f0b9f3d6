"""Messages about machines that sleep: what a node says of its power, and what it is asked for."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from appliance.bus.messages import Message, RequestId, UnixTime

Sentence = Annotated[str, StringConstraints(max_length=500)]
Watts = Annotated[float, Field(ge=0, le=100_000, allow_inf_nan=False)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]

PowerState = Literal["awake", "going_to_sleep", "asleep", "off"]


class NodePower(Message):
    """Whether a node is awake, and why.

    A node that sleeps or is off has said so here, and then `offline` in its presence; one that is only offline is lost.
    """

    state: PowerState
    since: UnixTime
    reason: Sentence = ""
    """One sentence for people: why it is in this state."""
    idle_seconds: Amount = 0.0
    """How long nobody has used its experts; the time that it slept does not count."""
    blockers: Annotated[tuple[Sentence, ...], Field(max_length=50)] = ()
    """What keeps it from sleeping, a sentence each."""
    method: Literal["suspend", "poweroff"] | None = None
    """How it sleeps; None for a node that never does."""
    next_wake: UnixTime | None = None
    """When its own clock will wake it."""


class PowerCommand(Message):
    """A wish for a node: the node itself obeys `sleep`, `stay_off` and `stay_awake`, the hub `wake` and `recover`.

    The hub also heeds `stay_off`: it neither wakes nor recovers the node until somebody asks for it.
    """

    id: RequestId
    action: Literal["sleep", "wake", "stay_awake", "stay_off", "recover"]
    until: UnixTime | None = None
    """Of `stay_awake`, when it ends; until the next `sleep` when not set. Of `sleep`, when it is no longer wanted. Of
    `stay_off`, when it may be woken again; until a `wake`, `recover` or `stay_awake` when not set."""
    reason: Sentence = ""


class PlugReading(Message):
    """What a node's smart plug measures."""

    watts: Watts


class NodeEnergy(Message):
    """What a node uses, and what its sleep has saved."""

    source: Literal["rapl", "ipmi", "plug", "estimate"]
    watts: Watts
    used_kwh: Amount
    saved_kwh: Amount
    """Against a machine that is always on."""
    baseline: Literal["measured", "settings"] = "settings"
    """Where the watts of that machine come from: measured on the whole machine, or the settings."""
    since: UnixTime
    """When counting began."""
