"""The last seconds before the machine sleeps or goes down: prompt prefixes to disk, goodbye on the bus."""

import asyncio
import logging
from collections.abc import Sequence

from appliance.bus.client import Bus
from appliance.bus.power_messages import NodePower
from appliance.bus.topics import NODE_POWER
from appliance.node.sleeping.activity import WatchedForActivity

_log = logging.getLogger(__name__)

MARGIN = 0.2
"""Share of logind's time that is left unused: the lock must be given back before logind loses its patience."""
GOODBYE = 0.3
"""Share of our time that belongs to the goodbye, which the hub needs more than a saved prefix: without the goodbye, it
takes the node for lost."""


class Goodbye:
    """Does it within a given time, the more important part in any case."""

    def __init__(self, *, node: str, bus: Bus, experts: Sequence[WatchedForActivity]) -> None:
        """Take the node's name, its client of the bus, and the experts."""
        self._node = node
        self._bus = bus
        self._experts = experts

    async def say(self, power: NodePower, last: NodePower, *, longest_delay: float) -> None:
        """Publish `power`, save, publish `last` and leave the bus, all well within `longest_delay` seconds."""
        loop = asyncio.get_running_loop()
        end = loop.time() + longest_delay * (1 - MARGIN)
        reserve = longest_delay * (1 - MARGIN) * GOODBYE
        try:
            async with asyncio.timeout_at(end - reserve):
                await asyncio.gather(self._bus.keep(NODE_POWER, power, node=self._node), self.save())
        except TimeoutError:
            _log.warning("not all prompt prefixes were saved within %.1f s", longest_delay * (1 - MARGIN) - reserve)
        try:
            async with asyncio.timeout_at(end):
                await self._bus.keep(NODE_POWER, last, node=self._node)
                if not await self._bus.leave(max(0.0, end - loop.time())):
                    _log.warning("the broker has not heard that this node goes to sleep")
        except TimeoutError:
            _log.warning("the broker did not take the goodbye in time")
            await self._bus.leave(0)

    async def save(self) -> None:
        """Have all experts save their prompt prefixes, at the same time."""
        await asyncio.gather(*(expert.save_prefixes() for expert in self._experts))
