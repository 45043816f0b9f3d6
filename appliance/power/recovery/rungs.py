"""The rungs of the ladder: ways to bring a machine back, each with a protocol of its own."""

from dataclasses import dataclass
from typing import Literal, Protocol

from appliance.power.nodes import KnownNode

type RungName = Literal["magic_packet", "ipmi", "plug", "script"]


@dataclass(frozen=True, slots=True)
class Done:
    """A rung did its part."""

    evidence: str
    """What was seen."""


class Rung(Protocol):
    """One way."""

    @property
    def name(self) -> RungName:
        """What it is called on the bus and in the audit log."""

    @property
    def switches_power(self) -> bool:
        """Whether it may cut a running machine's power, which is counted and limited."""

    @property
    def patience(self) -> float:
        """Seconds to wait for the node's return after it."""

    def serves(self, node: str) -> bool:
        """Whether it is set up for a node."""

    async def act(self, node: KnownNode) -> Done:
        """Do its part, and say what was seen.

        Raises:
            RungError: it could not.
        """
