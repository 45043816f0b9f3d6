"""The first rung: call it again. Machines go to sleep without a word, and packets get lost."""

from appliance.power.errors import RungError
from appliance.power.nodes import KnownNode
from appliance.power.recovery.rungs import Done, RungName
from appliance.power.wake.waker import Waker


class MagicPacketRung:
    """Sends magic packets for a while."""

    name: RungName = "magic_packet"
    switches_power = False
    patience = 1.0
    """It has waited already."""

    def __init__(self, *, waker: Waker, seconds: float) -> None:
        """Take what sends them, and for how long."""
        self._waker = waker
        self._seconds = seconds

    def serves(self, node: str) -> bool:  # noqa: ARG002 - the protocol's
        """Say yes: it costs nothing to try."""
        return True

    async def act(self, node: KnownNode) -> Done:
        """Call the node until it is back or the time is over."""
        woken = await self._waker.wake(node.name, "it is missing", cause="recovery", within=self._seconds)
        if not woken.ok:
            raise RungError(woken.detail)
        return Done(woken.detail)
