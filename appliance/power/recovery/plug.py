"""The third rung: a smart plug of Home Assistant's, asked for on the bus."""

import asyncio
import time
from collections.abc import Callable, Collection, Mapping

from appliance.bus.client import Bus
from appliance.bus.errors import BusUnavailableError
from appliance.bus.topics import PLUG_COMMAND, PLUG_RESULT
from appliance.bus.waking_messages import PlugCommand, PlugResult
from appliance.power.errors import RungError
from appliance.power.nodes import KnownNode
from appliance.power.recovery.rungs import Done, RungName
from appliance.power.wake.ids import new_id


class PlugRung:
    """Takes the machine's power away for some seconds."""

    name: RungName = "plug"
    switches_power = True

    def __init__(
        self,
        *,
        bus: Bus,
        nodes: Collection[str],
        confirm_seconds: float,
        patience: float,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Take the nodes that have a plug, and the seconds for the confirmation and for a machine's start."""
        self.patience = patience
        self._bus = bus
        self._nodes = nodes
        self._confirm_seconds = confirm_seconds
        self._wall = wall
        self._waiting: dict[str, asyncio.Future[PlugResult]] = {}
        bus.subscribe(PLUG_RESULT, self._on_result)

    def serves(self, node: str) -> bool:
        """Whether the node has a plug."""
        return node in self._nodes

    async def act(self, node: KnownNode) -> Done:
        """Ask for the plug to be switched, and wait for the confirmation."""
        command = PlugCommand(
            id=new_id(),
            action="cycle",
            deadline=self._wall() + self._confirm_seconds,
            reason=f"{node.name} is missing",
        )
        answer: asyncio.Future[PlugResult] = asyncio.get_running_loop().create_future()
        self._waiting[command.id] = answer
        try:
            async with asyncio.timeout(self._confirm_seconds):
                await self._bus.publish(PLUG_COMMAND, command, timeout=self._confirm_seconds, node=node.name)
                result = await answer
        except (TimeoutError, BusUnavailableError):
            raise RungError(
                f"Home Assistant did not confirm within {self._confirm_seconds:g} s that the plug was switched; "
                "is one chosen in the integration's options?"
            ) from None
        finally:
            del self._waiting[command.id]
        watts = f", {result.watts:g} W" if result.watts is not None else ""
        said = f"{result.message or 'no reason given'}{watts}"
        if not result.ok:
            raise RungError(f"the plug was not switched: {said}")
        return Done(f"the plug was switched: {said}")

    async def _on_result(self, result: PlugResult | None, _levels: Mapping[str, str]) -> None:
        waiting = self._waiting.get(result.id) if result is not None else None
        if waiting is not None and result is not None and not waiting.done():
            waiting.set_result(result)
