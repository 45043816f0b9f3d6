"""Messages about waking machines, and about those that do not come back."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from appliance.bus.messages import Message, RequestId, Slug, UnixTime
from appliance.bus.power_messages import Sentence, Watts

Area = Annotated[str, StringConstraints(max_length=200)]


class WakeHint(Message):
    """Something happened after which an agent is likely to be asked soon: the hub wakes the experts that it uses."""

    kind: Literal["speech", "arrival", "other"]
    """`speech`: someone has begun to speak; `arrival`: someone came home."""
    agent: Slug | None = None
    """Who is about to be asked; every agent of the hub when neither it nor an expert is named."""
    expert: Slug | None = None
    """The expert that will be needed, if the sender knows."""
    area: Area | None = None
    """Where it happened, for the log."""


class PlugCommand(Message):
    """The hub asks for a node's smart plug: the recovery ladder's way to a machine that answers nothing else."""

    id: RequestId
    action: Literal["cycle", "on"]
    """`cycle`: off, some seconds of pause, on."""
    deadline: UnixTime
    """When nobody waits any more; a command that is read later must not be obeyed."""
    off_seconds: Annotated[float, Field(ge=1, le=300, allow_inf_nan=False)] = 10.0
    """Of `cycle`, how long it is off: power supplies need some seconds to run empty."""
    reason: Sentence = ""


class PlugResult(Message):
    """What became of a plug command. `ok` means that the plug was seen to be on at the end."""

    id: RequestId
    ok: bool
    message: Sentence = ""
    """One sentence for people: what was seen, or why it could not be done."""
    watts: Watts | None = None
    """What the plug measured at the end, where it measures."""


class RecoveryStep(Message):
    """One rung of the ladder that was tried."""

    rung: Literal["magic_packet", "ipmi", "plug", "script"]
    outcome: Literal["returned", "no_return", "failed", "refused"]
    evidence: Sentence = ""
    """What was seen."""
    at: UnixTime


class RepairNotice(Message):
    """A node that is missed and could not be brought back; withdrawn when it is back."""

    node: Slug
    problem: Literal["lost", "did_not_wake", "unreachable"]
    """`lost`: it was awake and is gone without goodbye; `did_not_wake`: it slept or was off, and does not come when it
    is called; `unreachable`: it is on and answers, and yet is not on the bus."""
    summary: Sentence
    """For people: what happened and what to do."""
    since: UnixTime
    """When it was first missed."""
    steps: Annotated[tuple[RecoveryStep, ...], Field(max_length=20)] = ()
    next_attempt: UnixTime | None = None
    """When the hub will try again by itself; None if it will not."""
