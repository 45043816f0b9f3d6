"""Messages of pairing: nodes that wait, and what to do about them."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from appliance.bus.messages import Message, RequestId, Slug, UnixTime

Line = Annotated[str, StringConstraints(max_length=300)]
PairingCode = Annotated[str, StringConstraints(pattern=r"^[0-9]{8}$")]


class PairingOffer(Message):
    """A node that waits to be paired, as the hub sees it in the network; nothing of it is proven yet."""

    node: Slug
    title: Line
    model: Line
    version: Line
    """Of Rouse."""
    roles: tuple[Literal["hub", "expert", "voice", "vision"], ...]
    address: Line
    """Where its pairing door is: host and port."""
    fingerprint: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    """SHA-256 of the node's public key; its screen can show it too."""
    state: Literal["open", "claimed", "locked", "paired"]
    since: UnixTime


class PairingClaim(Message):
    """Pair a node with the hub, or let it go.

    A claim that is delivered twice is carried out once.
    """

    id: RequestId
    action: Literal["pair", "forget"]
    code: PairingCode | None = Field(default=None, repr=False)
    """The code that the node shows, for `pair`. It is used up by the claim."""
    deadline: UnixTime
    """When the client stops waiting; a claim that comes later is dropped."""


class PairingResult(Message):
    """How a claim went."""

    id: RequestId
    ok: bool
    reason: Literal[
        "paired", "handed_over", "forgotten", "unknown_node", "wrong_code", "locked", "claimed", "unreachable",
        "impostor", "name_taken", "expired", "malformed", "not_possible",
    ]  # fmt: skip
    """`handed_over` when the node has all it needs but its last word is missing: it is paired once it is seen."""
    message: Line
    """One sentence for people."""
    attempts_left: Annotated[int, Field(ge=0, le=100)] | None = None
    retry_after: Annotated[float, Field(ge=0, le=1e6)] | None = None
    """Seconds."""
    others: tuple[Line, ...] = ()
    """Addresses that tried to claim the node meanwhile."""


class PairedNode(Message):
    """A node that belongs to the hub."""

    node: Slug
    fingerprint: str
    state: Literal["handed_over", "paired"]
    since: UnixTime
