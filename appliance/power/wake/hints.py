"""Hints on the bus that an agent is about to be asked: someone began to speak, someone came home."""

from collections.abc import Mapping, Sequence

from appliance.bus.client import Bus
from appliance.bus.topics import WAKE_HINT
from appliance.bus.waking_messages import WakeHint
from appliance.power.metrics import PowerMetrics
from appliance.power.wake.experts import ExpertWaker


class Hints:
    """Wakes the experts of that agent."""

    def __init__(self, *, agents: Mapping[str, Sequence[str]], experts: ExpertWaker, metrics: PowerMetrics) -> None:
        """Take the experts that each agent is likely to need, and what wakes them."""
        self._agents = agents
        self._experts = experts
        self._metrics = metrics

    def attach(self, bus: Bus) -> None:
        """Subscribe to the hints."""
        bus.subscribe(WAKE_HINT, self.take)

    async def take(self, hint: WakeHint | None, _levels: Mapping[str, str]) -> None:
        """Take a hint. It is no command: nodes that somebody wants asleep, or that just failed, are left alone."""
        if hint is None:
            return
        self._metrics.hints.labels(hint.kind).inc()
        wanted = {hint.expert} if hint.expert is not None else set()
        if hint.agent is not None:
            wanted |= set(self._agents.get(hint.agent, ()))
        elif hint.expert is None:
            wanted |= {expert for experts in self._agents.values() for expert in experts}
        where = f" in {hint.area}" if hint.area else ""
        self._experts.wake(sorted(wanted), f"a hint: {hint.kind}{where}", cause="hint")
