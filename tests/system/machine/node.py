"""The node daemon in this process, on a real broker and a real message bus, and what it says there."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from appliance.bus.client import Bus
from appliance.bus.messages import ExpertStatus, NodeTelemetry, Presence
from appliance.bus.power_messages import NodeEnergy, NodePower, PowerCommand
from appliance.bus.topics import (
    EXPERT_STATUS,
    NODE_ENERGY,
    NODE_POWER,
    NODE_STATUS,
    NODE_TELEMETRY,
    POWER_COMMAND,
    Topic,
)
from appliance.node import daemon
from appliance.node.dbus.connection import ADDRESS_VARIABLE
from appliance.node.sleeping.policy import Decision, Observation, SleepOptions, Stay
from appliance.node.updating import MakeUpdates, no_updates
from appliance.settings.model import Settings
from tests.system.conftest import RunningBroker
from tests.system.machine.expert import PlayedExpert

NODE = "attic"
QUICK = SleepOptions(method="suspend", without_wake=True, busy_interval=0.02, decide_interval=0.05)


@dataclass
class IdlePolicy:
    """Sleeps after some idle time, unless somebody is there; remembers what it was asked."""

    idle_after: float = 10.0
    wake_at: float | None = None
    seen: Observation | None = None
    action: str = "suspend"

    def __call__(self, seen: Observation, now: float) -> Decision:
        self.seen = seen
        blockers = [*seen.inhibitors, *(f"{person} is logged in" for person in seen.sessions)]
        if seen.active_requests or seen.queued_jobs:
            blockers.append("it answers requests")
        if seen.update_running:
            blockers.append("an update is being installed")
        if seen.stay_awake_until is not None:
            blockers.append("somebody asked it to stay awake")
        if now - seen.last_activity < self.idle_after:
            return Stay("not idle for long enough", blockers=tuple(blockers), wake_at=self.wake_at)
        if blockers:
            return Stay(blockers[0], blockers=tuple(blockers), wake_at=self.wake_at)
        action: Any = self.action
        return Stay("nobody needs it", action=action, wake_at=self.wake_at)


@dataclass
class Heard:
    """Everything that the node said, in order, with what else happened."""

    journal: list[tuple[str, Any]] = field(default_factory=list)

    def all(self, kind: str) -> list[Any]:
        return [what for name, what in self.journal if name == kind]

    def last(self, kind: str) -> Any:
        found = self.all(kind)
        return found[-1] if found else None

    async def until(self, condition: Callable[[], bool], what: str, seconds: float = 20) -> None:
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"not seen: {what}; there is {self.journal[-12:]}") from None

    async def until_power(self, state: str, count: int = 1) -> NodePower:
        """Wait until the node has been in a state so often; each change counts once."""

        def changes() -> list[NodePower]:
            said = self.all("power")
            return [
                power
                for before, power in zip([None, *said], said, strict=False)
                if power.state == state != getattr(before, "state", "")
            ]

        await self.until(lambda: len(changes()) >= count, f"power {state}, {count} times")
        return changes()[count - 1]


class Observer:
    """A client of the bus that hears all that a node says, and can ask it for something."""

    def __init__(self, broker: RunningBroker, heard: Heard) -> None:
        self.heard = heard
        self._bus = Bus(broker.connection("homeassistant"), identifier="observer")
        self._sent = 0
        topics: dict[str, Topic[Any]] = {
            "power": NODE_POWER,
            "presence": NODE_STATUS,
            "expert": EXPERT_STATUS,
            "telemetry": NODE_TELEMETRY,
            "energy": NODE_ENERGY,
        }
        for kind, topic in topics.items():
            self._bus.subscribe(topic, self._noting(kind))

    def _noting(self, kind: str) -> Callable[..., Any]:
        async def note(
            message: NodePower | Presence | ExpertStatus | NodeTelemetry | NodeEnergy | None, _: Mapping[str, str]
        ) -> None:
            self.heard.journal.append((kind, message))

        return note

    async def ask(self, action: Any, **more: Any) -> None:
        self._sent += 1
        command = PowerCommand(id=f"command-{self._sent}", action=action, **more)
        await self._bus.publish(POWER_COMMAND, command, node=NODE)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["Observer"]:
        async with self._bus:
            await self._bus.wait_connected(10)
            yield self


@asynccontextmanager
async def running_node(
    broker: RunningBroker,
    expert: PlayedExpert,
    *,
    address: str,
    folder: Path,
    plan: daemon.PowerPlan,
    supervisor: str = "process",
    roles: tuple[str, ...] = ("expert",),
    updates: MakeUpdates = no_updates,
) -> AsyncIterator[None]:
    """Run the daemon with one expert, called small, until the context ends."""
    settings = Settings.model_validate(
        {
            "node": {
                "name": NODE,
                "roles": roles,
                "telemetry_interval": 60,
                "status_port": 0,
                "supervisor": supervisor,
            },
            "paths": {"state": folder / "state", "models": folder},
            "experts": {"small": {"model": "m.gguf"}},
        }
    )
    stop = asyncio.Event()
    task = asyncio.create_task(
        daemon.run(
            settings,
            connection=broker.connection(),
            environment={ADDRESS_VARIABLE: address},
            stop=stop,
            power=plan,
            expert_command=expert.command,
            updates=updates,
        )
    )
    try:
        yield
        assert not task.done(), task.exception()
    finally:
        stop.set()
        await task
